//! A producer that sends records, and tracks their delivery.
//!
//! Threads: librdkafka has one thread per broker and one of its own. It blocks all signals in them
//! (`rd_kafka_new`, `rd_kafka_broker_add`), so they receive no signals for the backend. All
//! callbacks run in [`BaseProducer::poll`], on the thread that calls it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer as _};

use crate::targets::kafka::client_events::{ClientEvents, Deliveries, FailedRecord, lock};
use crate::targets::kafka::config::Config;
use crate::targets::kafka::encode;
use crate::targets::kafka::error::{self, LastError, Operation};
use coco_core::change::{Change, DeliveryError, TargetSchema};

/// Pause between two checks of the delivery reports.
const TICK: Duration = Duration::from_millis(1);

/// Number of events processed per check.
const MAX_EVENTS: usize = 16;

/// Number of records after which delivery reports are checked.
const POLL_EVERY: usize = 1000;

/// Added to `delivery_timeout`: librdkafka reports a timed-out record some time later.
const GRACE: Duration = Duration::from_secs(10);

/// Attempts to find the leaders of a topic, and the timeout of each.
const LEADER_ATTEMPTS: u32 = 100;
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends records. When the last clone is dropped, unsent records are never sent: the client purges
/// its queues, ends its threads and closes its connections. That needs no response from a broker,
/// and takes some milliseconds; a name lookup in progress is waited for.
#[derive(Clone)]
pub struct Producer {
    client: Arc<BaseProducer<ClientEvents>>,
    delivery_timeout: Duration,
}

impl Producer {
    /// Opens a producer. It connects by itself soon: an idempotent producer must ask the brokers
    /// for its id.
    pub fn open(config: &Config) -> Result<Producer, DeliveryError> {
        let client = config.producer().create_with_context(ClientEvents::default());
        let client =
            Arc::new(client.map_err(|e| error::of_kafka_error(&Operation::Open, &e, None))?);
        Ok(Producer { client, delivery_timeout: config.delivery_timeout })
    }

    fn events(&self) -> &ClientEvents {
        self.client.context()
    }

    /// Returns the last error that the client reported of its connections.
    pub fn last_error(&self) -> Option<LastError> {
        lock(&self.events().last_error).clone()
    }

    /// Runs the callbacks of past events, without waiting.
    fn serve(&self) {
        // Each call processes at most one event: the delivery reports of a request, or an error.
        for _ in 0..MAX_EVENTS {
            self.client.poll(Duration::ZERO);
        }
    }

    /// Waits until the brokers refuse the login, possibly forever.
    pub async fn rejected(&self) -> Code {
        loop {
            self.serve();
            match self.last_error() {
                Some(last_error) if error::is_rejection(last_error.code) => return last_error.code,
                _ => tokio::time::sleep(10 * TICK).await,
            }
        }
    }

    /// Asks the brokers for the metadata of a topic.
    pub async fn metadata(&self, topic: &str, timeout: Duration) -> KafkaResult<Metadata> {
        let (client, topic) = (Arc::clone(&self.client), topic.to_owned());
        let asked = move || client.client().fetch_metadata(Some(&topic), timeout);
        tokio::task::spawn_blocking(asked).await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Waits until the brokers know the leader of each partition of a topic that was just created.
    /// A producer that sends earlier retries after a tenth of a second. If the wait takes too long
    /// or fails, the next send handles it.
    pub async fn await_leaders(&self, topic: &str) {
        for _ in 0..LEADER_ATTEMPTS {
            let Ok(found) = self.metadata(topic, METADATA_TIMEOUT).await else { return };
            let found = found.topics().iter().find(|t| t.name() == topic && t.error().is_none());
            let partitions = found.map_or(&[][..], |topic| topic.partitions());
            if !partitions.is_empty() && partitions.iter().all(|p| p.leader() >= 0) {
                return;
            }
            tokio::time::sleep(5 * TICK).await;
        }
    }

    /// Sends the records of some changes, given by their indexes, and waits until all are delivered
    /// or have failed. Returns the records that failed because of a row, which need not be their
    /// own.
    pub async fn send(
        &self,
        schema: &TargetSchema,
        changes: &[Change],
        places: &[usize],
    ) -> Result<Vec<FailedRecord>, DeliveryError> {
        *lock(&self.events().deliveries) = Deliveries::default();
        let mut unsent = Vec::new();
        for (n, place) in places.iter().copied().enumerate() {
            let Some(change) = changes.get(place) else { continue };
            if let Err(code) = self.enqueue(schema, change, place).await? {
                unsent.push(FailedRecord { place, code, alone: true });
            }
            if n % POLL_EVERY == POLL_EVERY - 1 {
                self.poll_deliveries(schema)?;
                tokio::task::yield_now().await;
            }
        }
        let waited = Instant::now();
        while self.poll_deliveries(schema)? + unsent.len() < places.len() {
            if waited.elapsed() > self.delivery_timeout + GRACE {
                return Err(self.send_error(schema, Code::MessageTimedOut));
            }
            tokio::time::sleep(TICK).await;
        }
        unsent.append(&mut lock(&self.events().deliveries).failed);
        Ok(unsent)
    }

    /// Queues a record as soon as there is space. The inner `Err` rejects the record without
    /// sending it.
    async fn enqueue(
        &self,
        schema: &TargetSchema,
        change: &Change,
        place: usize,
    ) -> Result<Result<(), Code>, DeliveryError> {
        loop {
            let Some(record) = encode::record(schema, change, place) else {
                return Err(DeliveryError::target("XX000", "rows for Kafka must be JSON"));
            };
            let code = match self.client.send(record) {
                Ok(()) => return Ok(Ok(())),
                Err((error, _)) => error.rdkafka_error_code().unwrap_or(Code::Fail),
            };
            if code == Code::QueueFull {
                self.poll_deliveries(schema)?;
                tokio::time::sleep(TICK).await;
            } else if error::row_sqlstate(code).is_some() {
                return Ok(Err(code));
            } else {
                return Err(self.send_error(schema, code));
            }
        }
    }

    /// Returns how many records are delivered or have failed. Returns an error if a record failed
    /// for a reason that no row causes: further waiting is useless.
    fn poll_deliveries(&self, schema: &TargetSchema) -> Result<usize, DeliveryError> {
        self.serve();
        let (done, failed) = {
            let deliveries = lock(&self.events().deliveries);
            let failed = deliveries.failed.iter().find(|f| error::row_sqlstate(f.code).is_none());
            (deliveries.delivered + deliveries.failed.len(), failed.copied())
        };
        let rejected = self.last_error().map(|h| h.code).filter(|code| error::is_rejection(*code));
        match failed.map(|f| f.code).or(rejected) {
            Some(code) => Err(self.send_error(schema, code)),
            None => Ok(done),
        }
    }

    fn send_error(&self, schema: &TargetSchema, code: Code) -> DeliveryError {
        let operation = Operation::Send(&schema.target);
        match self.client.client().fatal_error() {
            // The error that ended the producer; all its records then fail with it.
            Some((code, reason)) => {
                error::of_code(&operation, code, Some(LastError { code, reason }))
            }
            None => error::of_code(&operation, code, self.last_error()),
        }
    }
}

//! A producer: sends records, and knows which have arrived.
//!
//! Threads: librdkafka has one for each broker and one of its own. It blocks all signals in them
//! (`rd_kafka_new`, `rd_kafka_broker_add`), so they take none that are for the backend. All
//! callbacks come from [`BaseProducer::poll`], on the thread that calls it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use crate::targets::kafka::config::Config;
use crate::targets::kafka::encode;
use crate::targets::kafka::error::{self, LastError, Operation};
use coco_core::change::{Change, DeliveryError, TargetSchema};

/// How long to wait between two looks at what has arrived.
const TICK: Duration = Duration::from_millis(1);

/// How many events are served at a look.
const MAX_EVENTS: usize = 16;

/// After how many records there is a look at what has arrived meanwhile.
const POLL_EVERY: usize = 1000;

/// Above `delivery_timeout`: librdkafka reports a record that has run out of it some time later.
const GRACE: Duration = Duration::from_secs(10);

/// A record that has not arrived, and why.
#[derive(Clone, Copy, Debug)]
pub struct FailedRecord {
    /// Which of the changes it is of.
    pub place: usize,
    pub code: Code,
    /// Whether the reason is its own for sure, and not that of others that were sent with it.
    pub alone: bool,
}

/// Hears what a client has to say.
#[derive(Default)]
pub struct ClientEvents {
    last_error: Mutex<Option<LastError>>,
    deliveries: Mutex<Deliveries>,
}

#[derive(Default)]
struct Deliveries {
    arrived: usize,
    failed: Vec<FailedRecord>,
}

impl ClientContext for ClientEvents {
    /// Nothing: what matters comes as an error, and this would go to the stderr of the database
    /// server.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        let mut last_error = lock(&self.last_error);
        // That all brokers are down says less than why one of them is, which was said before.
        if code != Code::AllBrokersDown || last_error.is_none() {
            *last_error = Some(LastError { code, reason: reason.to_owned() });
        }
    }
}

impl ProducerContext for ClientEvents {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let mut deliveries = lock(&self.deliveries);
        match result {
            Ok(_) => deliveries.arrived += 1,
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                deliveries.failed.push(FailedRecord { place, code, alone: false });
            }
        }
    }
}

/// What it guards is whole at any time, even if a thread has panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often it is asked who leads a topic, and how long an answer is waited for.
const LEADER_ATTEMPTS: u32 = 100;
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends records. When the last clone is dropped, what was not sent yet never will be: it purges its queues,
/// ends its threads and closes its connections. That takes no answer from a broker, and some
/// milliseconds; a name that is being looked up by then is waited for.
#[derive(Clone)]
pub struct Producer {
    client: Arc<BaseProducer<ClientEvents>>,
    delivery_timeout: Duration,
}

impl Producer {
    /// Connects by itself, soon: an idempotent producer has to ask the brokers for its id.
    pub fn open(config: &Config) -> Result<Producer, DeliveryError> {
        let client = config.producer().create_with_context(ClientEvents::default());
        let client =
            Arc::new(client.map_err(|e| error::of_kafka_error(&Operation::Open, &e, None))?);
        Ok(Producer { client, delivery_timeout: config.delivery_timeout })
    }

    fn events(&self) -> &ClientEvents {
        self.client.context()
    }

    /// What it has last said of its connections.
    pub fn last_error(&self) -> Option<LastError> {
        lock(&self.events().last_error).clone()
    }

    /// Runs callbacks for what has happened, without waiting.
    fn serve(&self) {
        // A call serves one event, if there is one: the reports of a request, an error.
        for _ in 0..MAX_EVENTS {
            self.client.poll(Duration::ZERO);
        }
    }

    /// Returns when, and if ever, the brokers do not let us in.
    pub async fn rejected(&self) -> Code {
        loop {
            self.serve();
            match self.last_error() {
                Some(last_error) if error::is_rejection(last_error.code) => return last_error.code,
                _ => tokio::time::sleep(10 * TICK).await,
            }
        }
    }

    /// What the brokers say of a topic.
    pub async fn metadata(&self, topic: &str, timeout: Duration) -> KafkaResult<Metadata> {
        let (client, topic) = (Arc::clone(&self.client), topic.to_owned());
        let asked = move || client.client().fetch_metadata(Some(&topic), timeout);
        tokio::task::spawn_blocking(asked).await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// Waits until the brokers know who leads each partition of a topic that was just made: a producer that sends before
    /// looks again a tenth of a second later. Where that takes too long, or fails, it is left to who sends.
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

    /// Sends the records of some of the changes, given by their places, and waits until all have
    /// arrived or failed. Returns those that failed for a reason that is a row's, if not their own.
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

    /// Hands a record over to be sent, as soon as there is room for it. `Err` inside: it is refused
    /// without being sent.
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

    /// How many records have arrived or failed by now. An error if one failed for a reason that is
    /// no row's: then nothing is to be waited for.
    fn poll_deliveries(&self, schema: &TargetSchema) -> Result<usize, DeliveryError> {
        self.serve();
        let (done, failed) = {
            let deliveries = lock(&self.events().deliveries);
            let failed = deliveries.failed.iter().find(|f| error::row_sqlstate(f.code).is_none());
            (deliveries.arrived + deliveries.failed.len(), failed.copied())
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
            // What ended the producer, which all its records fail of then.
            Some((code, reason)) => {
                error::of_code(&operation, code, Some(LastError { code, reason }))
            }
            None => error::of_code(&operation, code, self.last_error()),
        }
    }
}

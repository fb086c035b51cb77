//! Reads what a compacted topic holds: the last record of each key.
//!
//! A broker computes no digests, so each pass reads the topic from its first record to its end.
//! The digests cover the texts of keys and rows, which coco sends unchanged.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::value::RawValue;

use crate::targets::changed_meanwhile;
use crate::targets::kafka::client_events::{ClientEvents, lock};
use crate::targets::kafka::config::Config;
use crate::targets::kafka::error::{self, Operation};
use crate::targets::kafka::producer::Producer;
use coco_core::change::{Change, DeliveryError, TargetSchema, Values};
use coco_core::key_range::{
    ChangeDigests, Digest, HeldRow, KeyRange, PartDigests, PartSums, RangeSet,
};

/// The largest number of parts in one comparison. The sums stay in this process, and more parts
/// need fewer passes.
pub const PARTS: usize = 65_536;

/// Number of keys that a pass remembers, about 100 MB. For a topic with more keys, each pass covers
/// a slice of them.
const MOST_KEYS: usize = 1 << 20;

/// Pause while no record has arrived.
const TICK: Duration = Duration::from_millis(1);

/// Number of records after which other tasks can run.
const YIELD_EVERY: usize = 1000;

impl ConsumerContext for ClientEvents {}

/// [`crate::targets::Verification::digests`]
pub fn digests(_schema: &TargetSchema, change: &Change) -> Result<ChangeDigests, String> {
    let json = || "rows for Kafka must be JSON".to_owned();
    let key = change.key.json().ok_or_else(json)?;
    let row = match change.row.as_ref().map(Values::json) {
        None => None,
        Some(value) => Some(row_digest(key.as_bytes(), value.ok_or_else(json)?.as_bytes())),
    };
    Ok(ChangeDigests { key: Digest::of(&[key.as_bytes()]), row })
}

fn row_digest(key: &[u8], value: &[u8]) -> Digest {
    Digest::of(&[&(key.len() as u64).to_be_bytes(), key, value])
}

/// A topic that is read.
pub struct Reader<'a> {
    config: &'a Config,
    topic: &'a str,
    partitions: Vec<i32>,
    /// How many hexadecimal digits a slice of the keys has.
    digits: u32,
}

/// The last record of each key, by the digest of the key.
type LastRecords<T> = HashMap<Digest, T>;

impl<'a> Reader<'a> {
    pub async fn open(
        config: &'a Config,
        producer: &Producer,
        schema: &'a TargetSchema,
    ) -> Result<Reader<'a>, DeliveryError> {
        let topic = schema.target.as_str();
        let policy = schema.options.get("cleanup_policy").and_then(|policy| policy.as_str());
        if policy.is_some_and(|policy| policy.contains("delete")) {
            return Err(DeliveryError::target(
                "0A000",
                format!("topic \"{topic}\" does not keep all rows, so it cannot be verified"),
            )
            .detail("Its cleanup_policy deletes old records, also those of rows that exist."));
        }
        let operation = Operation::Read(topic);
        let found = producer.metadata(topic, config.request_timeout).await;
        let found =
            found.map_err(|e| error::of_kafka_error(&operation, &e, producer.last_error()))?;
        let found = found.topics().iter().find(|t| t.name() == topic && t.error().is_none());
        let partitions: Vec<i32> =
            found.map_or(&[][..], |topic| topic.partitions()).iter().map(|p| p.id()).collect();
        if partitions.is_empty() {
            return Err(error::of_code(&operation, Code::UnknownTopicOrPartition, None));
        }
        Ok(Reader { config, topic, partitions, digits: 0 })
    }

    /// [`crate::targets::Target::part_digests`]
    pub async fn part_digests(
        &mut self,
        ranges: &[KeyRange],
        digits: u32,
    ) -> Result<PartDigests, DeliveryError> {
        let set = RangeSet::new(ranges);
        'slices: loop {
            let mut sums = PartSums::new(ranges, digits);
            for slice in slices(self.digits) {
                let is_wanted = |key| slice.contains(key) && set.contains(key);
                let last = self.last_records(is_wanted, row_digest, MOST_KEYS).await?;
                let Some(last) = last else {
                    self.digits += 1;
                    continue 'slices;
                };
                last.into_iter().for_each(|(key, row)| sums.add(key, row));
            }
            return Ok(sums.finish());
        }
    }

    /// [`crate::targets::Target::held_rows`]
    pub async fn held_rows(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        most: usize,
    ) -> Result<Vec<HeldRow>, DeliveryError> {
        let set = RangeSet::new(ranges);
        let row = |key: &[u8], value: &[u8]| {
            let json = key_text(schema, key)?;
            Some((row_digest(key, value), json))
        };
        let last = self.last_records(|key| set.contains(key), row, most).await?;
        let last = last.ok_or_else(changed_meanwhile)?;
        // A record whose key is not a key of the target cannot be from coco, and has no name here.
        let held = last.into_iter().filter_map(|(key, row)| {
            let (row, json) = row?;
            Some(HeldRow { key, row, json })
        });
        Ok(held.collect())
    }

    /// Reads the topic once. Returns the last records of the wanted keys that have a value; `None`
    /// if they are more than `most`.
    async fn last_records<T>(
        &self,
        is_wanted: impl Fn(Digest) -> bool,
        value: impl Fn(&[u8], &[u8]) -> T,
        most: usize,
    ) -> Result<Option<LastRecords<T>>, DeliveryError> {
        let consumer = self.consumer()?;
        let mut last = LastRecords::new();
        let mut unread: BTreeSet<i32> = self.partitions.iter().copied().collect();
        let (mut waited, mut read) = (Instant::now(), 0usize);
        while !unread.is_empty() {
            match consumer.poll(Duration::ZERO) {
                None => {
                    if waited.elapsed() > self.config.delivery_timeout {
                        return Err(self.failed(&consumer, Code::MessageTimedOut));
                    }
                    tokio::time::sleep(TICK).await;
                    continue;
                }
                Some(Ok(record)) => {
                    let key = record.key().unwrap_or_default();
                    let digest = Digest::of(&[key]);
                    if is_wanted(digest) {
                        match record.payload() {
                            Some(payload) => drop(last.insert(digest, value(key, payload))),
                            None => drop(last.remove(&digest)),
                        }
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    unread.remove(&partition);
                }
                Some(Err(error)) => {
                    let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                    if is_final(code) {
                        return Err(self.failed(&consumer, code));
                    }
                    // The client connects again by itself.
                    continue;
                }
            }
            waited = Instant::now();
            if last.len() > most {
                drop_in_background(consumer);
                return Ok(None);
            }
            read += 1;
            if read % YIELD_EVERY == 0 {
                tokio::task::yield_now().await;
            }
        }
        drop_in_background(consumer);
        Ok(Some(last))
    }

    /// Returns a consumer of all partitions from their first records. It stores no offsets.
    fn consumer(&self) -> Result<BaseConsumer<ClientEvents>, DeliveryError> {
        let fault = |e: KafkaError| error::of_kafka_error(&Operation::Read(self.topic), &e, None);
        let made = self.config.reader().create_with_context(ClientEvents::default());
        let consumer: BaseConsumer<ClientEvents> = made.map_err(fault)?;
        let mut assignment = TopicPartitionList::new();
        for partition in &self.partitions {
            let added = assignment.add_partition_offset(self.topic, *partition, Offset::Beginning);
            added.map_err(fault)?;
        }
        consumer.assign(&assignment).map_err(fault)?;
        Ok(consumer)
    }

    fn failed(&self, consumer: &BaseConsumer<ClientEvents>, code: Code) -> DeliveryError {
        let last_error = lock(&consumer.context().last_error).clone();
        error::of_code(&Operation::Read(self.topic), code, last_error)
    }
}

/// Reports whether an error ends a pass. After other errors, the client tries again by itself.
fn is_final(code: Code) -> bool {
    error::is_rejection(code)
        || matches!(
            code,
            Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::UnknownTopicId
        )
}

/// Returns the ranges of this many digits, which together hold all keys.
fn slices(digits: u32) -> Vec<KeyRange> {
    let prefix = |n: u64| format!("{n:0width$x}", width = digits as usize);
    match digits {
        0 => vec![KeyRange::ALL],
        _ => (0..16u64.pow(digits)).filter_map(|n| KeyRange::from_prefix(&prefix(n))).collect(),
    }
}

/// Returns the text of a record's key if it is an object of the key columns.
fn key_text(schema: &TargetSchema, key: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(key).ok()?;
    let columns: HashMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    let is_key = columns.len() == schema.key.len()
        && schema.key_columns().all(|column| columns.contains_key(&column.name));
    is_key.then(|| text.to_owned())
}

/// Drops a consumer where it may wait for its connections to close.
fn drop_in_background(consumer: BaseConsumer<ClientEvents>) {
    match tokio::runtime::Handle::try_current() {
        Ok(threads) => drop(threads.spawn_blocking(move || drop(consumer))),
        Err(_) => drop(consumer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::options::{Access, Options};
    use coco_core::change::Column;

    fn schema() -> TargetSchema {
        let column = |name: &str| Column {
            name: name.to_owned(),
            type_schema: "pg_catalog".to_owned(),
            type_name: "integer".to_owned(),
        };
        TargetSchema {
            flow: "f".to_owned(),
            target: "t".to_owned(),
            columns: vec![column("id"), column("n")],
            key: vec![0],
            options: serde_json::Map::new(),
        }
    }

    /// librdkafka checks combinations of settings when it creates a client, which needs no broker.
    #[test]
    fn the_settings_of_a_reader_fit_together() {
        let options = |pairs: &[(&str, &str)]| {
            Options(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        let server = options(&[("bootstrap_servers", "127.0.0.1:1")]);
        let access = Access { server, user: options(&[]), trusted: true };
        let config = Config::new(&access).unwrap_or_else(|e| panic!("{e:?}"));
        let reader = Reader { config: &config, topic: "t", partitions: vec![0], digits: 0 };
        assert_eq!(reader.consumer().err(), None);
    }

    #[test]
    fn slices_hold_all_keys_once() {
        for digits in 0..3 {
            let slices = slices(digits);
            assert_eq!(slices.len(), 16usize.pow(digits));
            for n in 0..500u32 {
                let key = Digest::of(&[&n.to_be_bytes()]);
                assert_eq!(slices.iter().filter(|slice| slice.contains(key)).count(), 1);
            }
        }
    }

    #[test]
    fn only_objects_of_the_key_columns_are_keys() {
        let schema = schema();
        assert_eq!(key_text(&schema, b"{\"id\":1}").as_deref(), Some("{\"id\":1}"));
        for other in [&b""[..], b"1", b"{\"n\":1}", b"{\"id\":1,\"n\":2}", b"\xff", b"{\"id\":1"] {
            assert_eq!(key_text(&schema, other), None);
        }
    }

    #[test]
    fn a_row_is_digested_with_its_key() {
        assert_ne!(row_digest(b"a", b"bc"), row_digest(b"ab", b"c"));
        let key = Values::Json("{\"id\":1}".to_owned());
        let row = Some(Values::Json("{\"id\":1,\"n\":2}".to_owned()));
        let mut change = Change { key, row, version: 1 };
        let made = digests(&schema(), &change).expect("digests");
        assert_eq!(made.row, Some(row_digest(b"{\"id\":1}", b"{\"id\":1,\"n\":2}")));
        change.row = None;
        assert_eq!(digests(&schema(), &change).expect("digests").row, None);
        change.key = Values::Binary(vec![]);
        assert!(digests(&schema(), &change).is_err());
    }
}

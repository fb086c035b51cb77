//! Topics, read back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::server::Kafka;

const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Record {
    pub partition: i32,
    pub key: String,
    pub value: Option<String>,
    pub headers: Vec<(String, String)>,
}

fn client(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.plaintext)
        .set("group.id", "tests")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true");
    config
}

fn consumer(kafka: &Kafka) -> BaseConsumer {
    client(kafka).create().expect("a consumer")
}

fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("metadata");
    let topics = metadata.topics().iter().filter(|t| t.name() == topic && t.error().is_none());
    topics.flat_map(|t| t.partitions()).map(|p| p.id()).collect()
}

pub fn partitions(kafka: &Kafka, topic: &str) -> usize {
    partitions_of(&consumer(kafka), topic).len()
}

pub fn exists(kafka: &Kafka, topic: &str) -> bool {
    partitions(kafka, topic) > 0
}

pub fn make(kafka: &Kafka, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("a client");
    let topics = [NewTopic::new(topic, 1, TopicReplication::Fixed(1))];
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let made = runtime.block_on(admin.create_topics(&topics, &AdminOptions::new()));
    assert!(made.expect("an answer").iter().all(Result::is_ok));
}

/// The first and the next offset of a partition, when it has a leader: a topic that was just made has none yet.
fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> (i64, i64) {
    let until = Instant::now() + TIMEOUT;
    loop {
        match consumer.fetch_watermarks(topic, partition, TIMEOUT) {
            Ok(found) => return found,
            Err(e) if Instant::now() > until => panic!("offsets: {e}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// All records of a topic, those of a partition in their order.
pub fn records(kafka: &Kafka, topic: &str) -> Vec<Record> {
    let consumer = consumer(kafka);
    let mut assignment = TopicPartitionList::new();
    let mut left = 0;
    for partition in partitions_of(&consumer, topic) {
        let (low, high) = watermarks(&consumer, topic, partition);
        assignment
            .add_partition_offset(topic, partition, Offset::Offset(low))
            .expect("a partition");
        left += high - low;
    }
    consumer.assign(&assignment).expect("an assignment");
    let mut records = Vec::new();
    while left > 0 {
        let message = consumer.poll(TIMEOUT).expect("a record in time").expect("a record");
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|h| (h.key.to_owned(), text(h.value.expect("a value")))).collect()
        });
        records.push(Record {
            partition: message.partition(),
            key: text(message.key().expect("a key")),
            value: message.payload().map(text),
            headers,
        });
        left -= 1;
    }
    records
}

/// What a reader is left with: the last value of each key, which has to be in one partition all the
/// time.
pub fn contents(kafka: &Kafka, topic: &str) -> BTreeMap<String, String> {
    let mut contents = BTreeMap::new();
    let mut places = BTreeMap::new();
    for record in records(kafka, topic) {
        let place = places.entry(record.key.clone()).or_insert(record.partition);
        assert_eq!(*place, record.partition, "{record:?}");
        match record.value {
            Some(value) => contents.insert(record.key, value),
            None => contents.remove(&record.key),
        };
    }
    contents
}

/// The value of a topic's setting.
pub async fn setting(kafka: &Kafka, topic: &str, name: &str) -> String {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("an admin");
    let topic = [ResourceSpecifier::Topic(topic)];
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let mut described = admin.describe_configs(&topic, &options).await.expect("settings");
    let described = described.pop().expect("a topic").expect("a topic");
    described.get(name).and_then(|entry| entry.value.clone()).expect("a setting")
}

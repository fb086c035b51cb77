//! The topic of a target: its options, and how it is created, found and deleted.

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
    TopicResult,
};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use serde_json::Value;

use crate::targets::Prepared;
use crate::targets::kafka::client_events::ClientEvents;
use crate::targets::kafka::config::Config;
use crate::targets::kafka::error::{self, Operation};
use crate::targets::kafka::producer::Producer;
use crate::targets::options::{OptionScope, OptionSpec};
use coco_core::change::{DeliveryError, TargetSchema};

pub const PARTITIONS: OptionSpec = OptionSpec::new(
    "partitions",
    OptionScope::Target,
    "Number of partitions of the topic; by default, the brokers' default.",
)
.check(|v| count(v, i32::MAX));
pub const REPLICATION_FACTOR: OptionSpec = OptionSpec::new(
    "replication_factor",
    OptionScope::Target,
    "Number of replicas of a topic that coco creates; by default, the brokers' default.",
)
.check(|v| count(v, i16::MAX.into()));
pub const CLEANUP_POLICY: OptionSpec = OptionSpec::new(
    "cleanup_policy",
    OptionScope::Target,
    "compact, delete, or compact,delete; a topic that coco creates is compacted by default.",
)
.check(cleanup_policy);
pub const CONFIG: OptionSpec = OptionSpec::new(
    "config",
    OptionScope::Target,
    "Other settings of a topic that coco creates, as a JSON object of Kafka's names and values.",
)
.check(|v| settings(serde_json::from_str(v).ok().as_ref()).map(drop));

fn count(value: &str, most: i32) -> Result<(), String> {
    match value.parse::<i32>() {
        Ok(n) if (1..=most).contains(&n) => Ok(()),
        _ => Err(format!("must be a whole number from 1 to {most}")),
    }
}

fn cleanup_policy(value: &str) -> Result<(), String> {
    match value {
        "compact" | "delete" | "compact,delete" => Ok(()),
        _ => Err("must be compact, delete, or compact,delete".to_owned()),
    }
}

/// Parses the names and values of `config`. The brokers check their meaning.
fn settings(config: Option<&Value>) -> Result<Vec<(String, String)>, String> {
    let wrong = || "must be a JSON object of names and values".to_owned();
    let named = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '.' | '_'))
    };
    let mut settings = Vec::new();
    for (name, value) in config.and_then(Value::as_object).ok_or_else(wrong)? {
        if name == "cleanup.policy" {
            return Err("must not contain cleanup.policy: use the option cleanup_policy".to_owned());
        }
        match text(value) {
            Some(value) if named(name) && !value.contains('\0') => {
                settings.push((name.clone(), value))
            }
            _ => return Err(wrong()),
        }
    }
    Ok(settings)
}

/// Returns a setting as text, whether it is a JSON string or not.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// [`crate::targets::Connector::check`]
pub fn check(schema: &TargetSchema) -> Result<(), String> {
    Topic::new(schema).map(drop)
}

/// The topic of a target.
pub struct Topic<'a> {
    name: &'a str,
    partitions: Option<i32>,
    replication_factor: Option<i32>,
    cleanup_policy: Option<String>,
    settings: Vec<(String, String)>,
}

impl<'a> Topic<'a> {
    /// Reads the declaration, or returns why no such topic can exist.
    pub fn new(schema: &'a TargetSchema) -> Result<Topic<'a>, String> {
        let name = schema.target.as_str();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty()
            || name.len() > 249
            || !name.chars().all(allowed)
            || [".", ".."].contains(&name)
        {
            return Err(format!(
                "target \"{name}\" cannot be the name of a topic: Kafka allows up to 249 of the \
                 characters a-z, A-Z, 0-9, \".\", \"_\" and \"-\""
            ));
        }
        if name.starts_with("__") {
            return Err(format!(
                "topic \"{name}\" cannot be a target: names that begin with \"__\" are Kafka's own"
            ));
        }
        let option = |spec: &OptionSpec| {
            let Some(value) = schema.options.get(spec.name) else { return Ok(None) };
            let wrong = |why: String| format!("option \"{}\" {why}", spec.name);
            let text = text(value).unwrap_or_else(|| value.to_string());
            (spec.check)(&text).map(|()| Some(text)).map_err(wrong)
        };
        // The checks have verified that these are numbers.
        let number =
            |spec: &OptionSpec| Ok::<_, String>(option(spec)?.and_then(|text| text.parse().ok()));
        option(&CONFIG)?;
        let settings = match schema.options.get(CONFIG.name) {
            Some(Value::String(text)) => settings(serde_json::from_str(text).ok().as_ref())?,
            Some(config) => settings(Some(config))?,
            None => Vec::new(),
        };
        Ok(Topic {
            name,
            partitions: number(&PARTITIONS)?,
            replication_factor: number(&REPLICATION_FACTOR)?,
            cleanup_policy: option(&CLEANUP_POLICY)?,
            settings,
        })
    }

    /// Reports whether the topic exists, by validating its creation. Another reason why it cannot
    /// be created also counts as existing; [`Topic::prepare`] then returns that error. (A request
    /// for its metadata could cause brokers to create it.)
    pub async fn exists(&self, admin: &Admin<'_>) -> Result<bool, DeliveryError> {
        let answer = self.create(admin, true).await?;
        Ok(answer.is_none_or(|could_be_made| could_be_made.is_err()))
    }

    /// Creates the topic, or only validates its creation.
    async fn create(
        &self,
        admin: &Admin<'_>,
        validate_only: bool,
    ) -> Result<Option<TopicResult>, DeliveryError> {
        let cleanup_policy = self.cleanup_policy.as_deref().unwrap_or("compact");
        let mut config = vec![("cleanup.policy", cleanup_policy)];
        config.extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let topic = NewTopic {
            name: self.name,
            // -1 is the brokers' default.
            num_partitions: self.partitions.unwrap_or(-1),
            replication: TopicReplication::Fixed(self.replication_factor.unwrap_or(-1)),
            config,
        };
        let options = admin.options().validate_only(validate_only);
        let made = admin.client.create_topics([&topic], &options);
        Ok(admin.wait(&Operation::Create(self.name), made).await?.into_iter().next())
    }

    /// Creates the topic if it is missing. An existing topic must match the declaration.
    pub async fn prepare(&self, admin: &Admin<'_>) -> Result<Prepared, DeliveryError> {
        let operation = Operation::Create(self.name);
        match self.create(admin, false).await? {
            Some(Ok(_)) => Ok(Prepared::Made),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                self.check_found(admin).await?;
                Ok(Prepared::Found)
            }
            // Brokers report an existing topic only to users who may create it.
            Some(Err((_, code @ RDKafkaErrorCode::TopicAuthorizationFailed)))
            | Some(Err((_, code @ RDKafkaErrorCode::ClusterAuthorizationFailed))) => {
                match self.found_partitions(admin).await? {
                    Some(_) => self.check_found(admin).await.map(|()| Prepared::Found),
                    None => Err(error::of_code(&operation, code, None)),
                }
            }
            Some(Err((_, code))) => Err(error::of_code(&operation, code, None)),
            None => Err(error::of_code(&operation, RDKafkaErrorCode::Unknown, None)),
        }
    }

    /// Checks that an existing topic matches the declaration. Options that are not declared may
    /// have any value.
    async fn check_found(&self, admin: &Admin<'_>) -> Result<(), DeliveryError> {
        if let (Some(wanted), Some(found)) = (self.partitions, self.found_partitions(admin).await?)
            && usize::try_from(wanted) != Ok(found)
        {
            return Err(self.differs("partitions", &found.to_string(), &wanted.to_string()));
        }
        let Some(wanted) = &self.cleanup_policy else { return Ok(()) };
        let topic = [ResourceSpecifier::Topic(self.name)];
        let described = admin.client.describe_configs(&topic, &admin.options());
        let found =
            match admin.wait(&Operation::Inspect(self.name), described).await?.into_iter().next() {
                Some(Ok(found)) => policy(&found),
                Some(Err(code)) => {
                    return Err(error::of_code(&Operation::Inspect(self.name), code, None));
                }
                None => None,
            };
        let sorted = |policy: &str| {
            let mut parts: Vec<&str> = policy.split(',').collect();
            parts.sort_unstable();
            parts.join(",")
        };
        match found {
            Some(found) if sorted(&found) != sorted(wanted) => {
                Err(self.differs("cleanup_policy", &found, wanted))
            }
            _ => Ok(()),
        }
    }

    fn differs(&self, option: &str, found: &str, wanted: &str) -> DeliveryError {
        DeliveryError::target(
            "HV000",
            format!("topic \"{}\" does not match its declaration", self.name),
        )
        .detail(format!("Its {option} is {found}, but {wanted} in the options of the target."))
        .hint(format!("Change the topic or the option {option}, or omit the option."))
    }

    /// Returns the number of partitions. `None`: the topic does not exist, or is not visible.
    async fn found_partitions(&self, admin: &Admin<'_>) -> Result<Option<usize>, DeliveryError> {
        let operation = Operation::Inspect(self.name);
        let found = admin.producer.metadata(self.name, admin.config.request_timeout).await;
        let found = found
            .map_err(|e| error::of_kafka_error(&operation, &e, admin.producer.last_error()))?;
        let topic = found.topics().iter().find(|t| t.name() == self.name && t.error().is_none());
        Ok(topic.map(|t| t.partitions().len()))
    }

    /// Deletes the topic if it exists.
    pub async fn delete(&self, admin: &Admin<'_>) -> Result<(), DeliveryError> {
        let operation = Operation::Delete(self.name);
        let deleted = admin.client.delete_topics(&[self.name], &admin.options());
        match admin.wait(&operation, deleted).await?.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))) | Some(Ok(_)) => Ok(()),
            Some(Err((_, code))) => Err(error::of_code(&operation, code, None)),
            None => Err(error::of_code(&operation, RDKafkaErrorCode::Unknown, None)),
        }
    }
}

fn policy(found: &ConfigResource) -> Option<String> {
    found.get("cleanup.policy").and_then(|entry| entry.value.clone())
}

/// An admin client, with its own connection.
pub type Client = AdminClient<ClientEvents>;

/// Drops a client on another thread: its thread checks only ten times a second whether it must end,
/// and the drop waits for it.
pub fn drop_in_background(client: Client) {
    match tokio::runtime::Handle::try_current() {
        Ok(threads) => drop(threads.spawn_blocking(move || drop(client))),
        Err(_) => drop(client),
    }
}

/// Creates, describes and deletes topics.
///
/// The admin client has a Rust thread, which inherits the blocked signals of the thread that
/// creates it.
pub struct Admin<'a> {
    pub client: Client,
    config: &'a Config,
    /// An admin client does not report why it cannot connect. The producer does, and connects with
    /// the same settings.
    producer: &'a Producer,
}

impl<'a> Admin<'a> {
    pub fn new(
        client: Option<Client>,
        config: &'a Config,
        producer: &'a Producer,
    ) -> Result<Admin<'a>, DeliveryError> {
        let client = match client {
            Some(client) => client,
            None => {
                let client = config.admin().create_with_context(ClientEvents::default());
                client.map_err(|e| error::of_kafka_error(&Operation::Open, &e, None))?
            }
        };
        Ok(Admin { client, config, producer })
    }

    fn options(&self) -> AdminOptions {
        let timeout = Some(self.config.request_timeout);
        AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
    }

    /// Waits for a response. Returns an error if the brokers refuse the login: the response would
    /// never come.
    async fn wait<T>(
        &self,
        operation: &Operation<'_>,
        answer: impl Future<Output = KafkaResult<T>>,
    ) -> Result<T, DeliveryError> {
        let failed =
            |e: KafkaError| error::of_kafka_error(operation, &e, self.producer.last_error());
        tokio::select! {
            answer = answer => answer.map_err(failed),
            code = self.producer.rejected() => {
                Err(error::of_code(operation, code, self.producer.last_error()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(target: &str, options: Value) -> TargetSchema {
        let options = options.as_object().cloned().unwrap_or_default();
        let (flow, target) = ("f".to_owned(), target.to_owned());
        TargetSchema { flow, target, columns: Vec::new(), key: Vec::new(), options }
    }

    #[test]
    fn names_are_those_that_kafka_allows() {
        for good in ["t", "T.1_a-b", "a".repeat(249).as_str(), "_x", "..."] {
            assert_eq!(check(&schema(good, json!({}))), Ok(()), "{good}");
        }
        for bad in
            ["", ".", "..", "a b", "\"x\"", "ä", "a/b", "a".repeat(250).as_str(), "__offsets"]
        {
            assert!(check(&schema(bad, json!({}))).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_are_numbers_or_text() {
        let all = json!({"partitions": 3, "replication_factor": "2",
            "cleanup_policy": "compact,delete",
            "config": {"retention.ms": -1, "min.insync.replicas": "2", "preallocate": true}});
        let all = schema("t", all);
        let topic = Topic::new(&all).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((topic.partitions, topic.replication_factor), (Some(3), Some(2)));
        assert_eq!(topic.cleanup_policy.as_deref(), Some("compact,delete"));
        let mut settings = topic.settings;
        settings.sort();
        let pairs: Vec<_> = settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            pairs,
            [("min.insync.replicas", "2"), ("preallocate", "true"), ("retention.ms", "-1")]
        );
    }

    #[test]
    fn options_that_no_topic_can_have_are_refused() {
        for bad in [
            json!({"partitions": 0}),
            json!({"partitions": 1.5}),
            json!({"partitions": [1]}),
            json!({"replication_factor": 40_000}),
            json!({"cleanup_policy": "never"}),
            json!({"config": []}),
            json!({"config": "x"}),
            json!({"config": {"a b": 1}}),
            json!({"config": {"a": null}}),
            json!({"config": {"cleanup.policy": "delete"}}),
        ] {
            let why = check(&schema("t", bad.clone())).err().unwrap_or_default();
            assert!(why.starts_with("option \""), "{bad}: {why}");
        }
    }
}

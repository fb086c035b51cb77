//! Classifies errors of librdkafka and of brokers, with hints.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use coco_core::change::{DeliveryError, ErrorScope, RejectedChange};

/// The operation that failed, with the name of the topic.
pub enum Operation<'a> {
    Open,
    Inspect(&'a str),
    Create(&'a str),
    Delete(&'a str),
    Send(&'a str),
    Read(&'a str),
}

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Open => write!(f, "could not create a client for Kafka"),
            Operation::Inspect(topic) => write!(f, "could not describe topic \"{topic}\""),
            Operation::Create(topic) => write!(f, "could not create topic \"{topic}\""),
            Operation::Delete(topic) => write!(f, "could not delete topic \"{topic}\""),
            Operation::Read(topic) => write!(f, "could not read topic \"{topic}\""),
            Operation::Send(topic) => write!(f, "could not send rows to topic \"{topic}\""),
        }
    }
}

/// The last error that a client reported of its connections: which broker, and why. It contains no
/// secrets.
#[derive(Clone, Debug)]
pub struct LastError {
    pub code: Code,
    pub reason: String,
}

/// Reports whether the brokers refuse the login. A longer wait would not help.
pub fn is_rejection(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::SSL
    )
}

/// Returns the SQLSTATE of an error that a record can cause. A broker returns it for all records
/// that were sent together, including valid ones.
pub fn row_sqlstate(code: Code) -> Option<&'static str> {
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            Some("54000") // program_limit_exceeded
        }
        Code::InvalidRecord | Code::InvalidDifferentRecord => Some("22000"), // data_exception
        _ => None,
    }
}

/// Returns the rejected change of a record that failed alone.
pub fn rejected_change(change: usize, code: Code, sqlstate: &str) -> RejectedChange {
    let message = match sqlstate {
        "54000" => format!(
            "the row is too large for the topic: {} (the limits are max_message_bytes of the \
             server and max.message.bytes of the topic)",
            description(code)
        ),
        _ => format!("the broker rejected the row: {}", description(code)),
    };
    RejectedChange { change, sqlstate: sqlstate.to_owned(), message }
}

/// Converts an error of the library.
pub fn of_kafka_error(
    operation: &Operation<'_>,
    error: &KafkaError,
    last_error: Option<LastError>,
) -> DeliveryError {
    match error {
        KafkaError::AdminOp(code) => of_code(operation, *code, last_error),
        // The error's text contains the value of the setting, which may be a secret.
        KafkaError::ClientConfig(_, why, setting, _) => {
            DeliveryError::server("HV024", format!("{operation}: {setting}")).detail(why.clone())
        }
        KafkaError::ClientCreation(why) => {
            DeliveryError::server("HV024", operation.to_string()).detail(why.clone()).hint(
                "Check the options of the server and of the user mapping, especially the \
                 certificates.",
            )
        }
        KafkaError::AdminOpCreation(why) => {
            DeliveryError::target("HV000", format!("{operation}: {why}"))
        }
        error => of_code(operation, error.rdkafka_error_code().unwrap_or(Code::Fail), last_error),
    }
}

/// Converts an error code, with the last error as its detail.
pub fn of_code(
    operation: &Operation<'_>,
    code: Code,
    last_error: Option<LastError>,
) -> DeliveryError {
    // The last error says more than the timeout.
    let code = match &last_error {
        Some(last_error) if is_late(code) && is_rejection(last_error.code) => last_error.code,
        _ => code,
    };
    let (scope, sqlstate, hint) = classify(code);
    let message = format!("{operation}: {}", description(code));
    let delivery_error = match scope {
        ErrorScope::Server => DeliveryError::server(sqlstate, message),
        ErrorScope::Target => DeliveryError::target(sqlstate, message),
    };
    let delivery_error = if hint.is_empty() { delivery_error } else { delivery_error.hint(hint) };
    match last_error {
        Some(last_error) => delivery_error.detail(last_error.reason),
        None => delivery_error,
    }
}

/// Returns the scope, the SQLSTATE and the hint of an error code.
fn classify(code: Code) -> (ErrorScope, &'static str, &'static str) {
    match code {
        code if is_late(code) => (
            ErrorScope::Server,
            "08006",
            "Check that the brokers run, that bootstrap_servers and security_protocol are right, \
             and that this machine can connect to the addresses that the brokers advertise. If the \
             brokers are slow, raise request_timeout and delivery_timeout.",
        ),
        Code::Authentication | Code::SaslAuthenticationFailed => (
            ErrorScope::Server,
            "28P01",
            "Check user and password of the user mapping, and sasl_mechanism of the server.",
        ),
        Code::UnsupportedSASLMechanism | Code::IllegalSASLState => {
            (ErrorScope::Server, "28000", "Check sasl_mechanism of the server.")
        }
        Code::SSL => (
            ErrorScope::Server,
            "08001",
            "Check security_protocol and sslrootcert of the server, and that the brokers' \
             certificates contain the host names that coco connects to.",
        ),
        Code::ClusterAuthorizationFailed => (
            ErrorScope::Server,
            "42501",
            "Grant the user these operations on the cluster: IdempotentWrite to send (before Kafka \
             2.8), Create to create topics.",
        ),
        Code::GroupAuthorizationFailed => (
            ErrorScope::Target,
            "42501",
            "To verify the topic, let the user Read the topic and the consumer group \"coco\".",
        ),
        Code::TopicAuthorizationFailed => (
            ErrorScope::Target,
            "42501",
            "Let the user Describe and Write the topic, and Create it unless it exists already. \
             Delete is needed to delete a topic, DescribeConfigs to check its cleanup_policy, Read \
             to verify it.",
        ),
        // A record fails with `BrokerDestroy` when its partition is removed while the client is
        // open.
        Code::BrokerDestroy
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::UnknownTopicId => (
            ErrorScope::Target,
            "HV00R", // fdw_table_not_found
            "Check whether the topic was deleted, and whether the user may see it. The next \
             attempt creates it again.",
        ),
        Code::InvalidTopic => (
            ErrorScope::Target,
            "42602",
            "Choose another name. Names that differ only in \".\" and \"_\" conflict.",
        ),
        Code::InvalidPartitions | Code::InvalidReplicationFactor | Code::InvalidConfig => (
            ErrorScope::Target,
            "22023",
            "Check partitions, replication_factor and config in the options of the target. There \
             cannot be more replicas than brokers.",
        ),
        Code::PolicyViolation => (
            ErrorScope::Target,
            "53400",
            "Create the topic according to the brokers' rule for topics (create.topic.policy).",
        ),
        Code::InvalidTimestamp => (
            ErrorScope::Target,
            "22008",
            "Check the clocks of this machine and the brokers: they differ by more than the topic \
             allows.",
        ),
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => (
            ErrorScope::Target,
            "57P03",
            "Check the brokers: fewer replicas are in sync than min.insync.replicas of the topic \
             requires.",
        ),
        // The producer no longer knows which records were delivered. A new producer starts again.
        Code::Fatal
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::GaplessGuarantee => (
            ErrorScope::Target,
            "HV000",
            "Check the brokers' logs if this continues. The next attempt opens a new producer.",
        ),
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::UnsupportedCompressionType => {
            (ErrorScope::Server, "0A000", "Use brokers of Kafka 0.11 or newer.")
        }
        Code::ThrottlingQuotaExceeded => {
            (ErrorScope::Server, "53400", "Raise the quota of this user on the brokers.")
        }
        _ => (ErrorScope::Server, "HV000", ""),
    }
}

/// Reports whether a broker was unreachable, or did not respond in time.
fn is_late(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::MessageTimedOut
            | Code::OperationTimedOut
            | Code::TimedOutQueue
            | Code::RequestTimedOut
            | Code::NetworkException
            | Code::BrokerNotAvailable
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
    )
}

/// Returns Kafka's description of a code, such as "Broker: Topic authorization failed".
fn description(code: Code) -> String {
    let description = code.to_string();
    let words = description.split_once(" (").and_then(|(_, words)| words.strip_suffix(')'));
    words.unwrap_or(&description).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let operation = Operation::Send("t");
        for (code, scope, sqlstate) in [
            (Code::MessageTimedOut, ErrorScope::Server, "08006"),
            (Code::SaslAuthenticationFailed, ErrorScope::Server, "28P01"),
            (Code::SSL, ErrorScope::Server, "08001"),
            (Code::ClusterAuthorizationFailed, ErrorScope::Server, "42501"),
            (Code::TopicAuthorizationFailed, ErrorScope::Target, "42501"),
            (Code::UnknownTopic, ErrorScope::Target, "HV00R"),
            (Code::BrokerDestroy, ErrorScope::Target, "HV00R"),
            (Code::InvalidReplicationFactor, ErrorScope::Target, "22023"),
            (Code::Fatal, ErrorScope::Target, "HV000"),
            (Code::KafkaStorageError, ErrorScope::Server, "HV000"),
        ] {
            let delivery_error = of_code(&operation, code, None);
            assert_eq!(
                (delivery_error.scope, delivery_error.sqlstate.as_str()),
                (scope, sqlstate),
                "{code:?}"
            );
            assert!(row_sqlstate(code).is_none(), "{code:?}");
        }
        assert_eq!(row_sqlstate(Code::MessageSizeTooLarge), Some("54000"));
        assert_eq!(row_sqlstate(Code::InvalidRecord), Some("22000"));
    }

    #[test]
    fn why_it_was_waited_is_told() {
        let last_error = LastError { code: Code::Authentication, reason: "the reason".to_owned() };
        let delivery_error =
            of_code(&Operation::Create("t"), Code::OperationTimedOut, Some(last_error));
        assert_eq!(delivery_error.sqlstate, "28P01");
        assert_eq!(delivery_error.detail.as_deref(), Some("the reason"));
        assert_eq!(
            delivery_error.message,
            "could not create topic \"t\": Local: Authentication failure"
        );
    }

    #[test]
    fn the_value_of_a_setting_is_not_told() {
        let mut config = rdkafka::config::ClientConfig::new();
        config.set("security.protocol", "hush");
        let error = config.create_native_config().err().unwrap_or(KafkaError::Canceled);
        let delivery_error = of_kafka_error(&Operation::Open, &error, None);
        assert!(delivery_error.message.contains("security.protocol"), "{delivery_error:?}");
    }
}

//! Errors of librdkafka and of brokers: whose they are, and how to mend them.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use coco_core::delivery::{Refused, Trouble, Whose};

/// What an error came of. Named with the topic.
pub enum Doing<'a> {
    Open,
    Look(&'a str),
    Make(&'a str),
    Delete(&'a str),
    Send(&'a str),
}

impl fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Doing::Open => write!(f, "a client for Kafka could not be made"),
            Doing::Look(topic) => write!(f, "topic \"{topic}\" could not be looked at"),
            Doing::Make(topic) => write!(f, "topic \"{topic}\" could not be made"),
            Doing::Delete(topic) => write!(f, "topic \"{topic}\" could not be deleted"),
            Doing::Send(topic) => write!(f, "rows could not be sent to topic \"{topic}\""),
        }
    }
}

/// What a client has last said of its connections: which broker, and why. Without secrets.
#[derive(Clone, Debug)]
pub struct Heard {
    pub code: Code,
    pub reason: String,
}

/// Whether the brokers do not let us in. Trying longer would not change that.
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

/// The SQLSTATE of an error that records can have of themselves. A broker gives it to all records
/// that were sent together, the good ones among them too.
pub fn row(code: Code) -> Option<&'static str> {
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            Some("54000") // program_limit_exceeded
        }
        Code::InvalidRecord | Code::InvalidDifferentRecord => Some("22000"), // data_exception
        _ => None,
    }
}

/// A row that is refused alone.
pub fn refused(change: usize, code: Code, sqlstate: &str) -> Refused {
    let message = match sqlstate {
        "54000" => format!(
            "the row is too large for the topic: {} (the limits are max_message_bytes of the \
             server and max.message.bytes of the topic)",
            said(code)
        ),
        _ => format!("the row is refused by the broker: {}", said(code)),
    };
    Refused { change, sqlstate: sqlstate.to_owned(), message }
}

/// The trouble that an error of the library is.
pub fn of(doing: &Doing<'_>, error: &KafkaError, heard: Option<Heard>) -> Trouble {
    match error {
        KafkaError::AdminOp(code) => trouble(doing, *code, heard),
        // Its display has the setting's value, which may be a secret.
        KafkaError::ClientConfig(_, why, setting, _) => {
            Trouble::server("HV024", format!("{doing}: {setting}")).detail(why.clone())
        }
        KafkaError::ClientCreation(why) => {
            Trouble::server("HV024", doing.to_string()).detail(why.clone()).hint(
                "Check the options of the server and of the user mapping, certificates above all.",
            )
        }
        KafkaError::AdminOpCreation(why) => Trouble::target("HV000", format!("{doing}: {why}")),
        error => trouble(doing, error.rdkafka_error_code().unwrap_or(Code::Fail), heard),
    }
}

/// The trouble that a code stands for, and what was heard of why.
pub fn trouble(doing: &Doing<'_>, code: Code, heard: Option<Heard>) -> Trouble {
    // That the time is over says less than why it was waited.
    let code = match &heard {
        Some(heard) if is_late(code) && is_rejection(heard.code) => heard.code,
        _ => code,
    };
    let (whose, sqlstate, hint) = kind(code);
    let message = format!("{doing}: {}", said(code));
    let trouble = match whose {
        Whose::Server => Trouble::server(sqlstate, message),
        Whose::Target => Trouble::target(sqlstate, message),
    };
    let trouble = if hint.is_empty() { trouble } else { trouble.hint(hint) };
    match heard {
        Some(heard) => trouble.detail(heard.reason),
        None => trouble,
    }
}

/// Whose an error is, its SQLSTATE, and how to mend it.
fn kind(code: Code) -> (Whose, &'static str, &'static str) {
    match code {
        code if is_late(code) => (
            Whose::Server,
            "08006",
            "Check that the brokers run, that bootstrap_servers and security_protocol are right, \
             and that this machine can connect to the addresses that the brokers advertise. Where \
             brokers are slow, raise request_timeout and delivery_timeout.",
        ),
        Code::Authentication | Code::SaslAuthenticationFailed => (
            Whose::Server,
            "28P01",
            "Check user and password of the user mapping, and sasl_mechanism of the server.",
        ),
        Code::UnsupportedSASLMechanism | Code::IllegalSASLState => {
            (Whose::Server, "28000", "Check sasl_mechanism of the server.")
        }
        Code::SSL => (
            Whose::Server,
            "08001",
            "Check security_protocol and sslrootcert of the server, and that the brokers' \
             certificates have the names they are reached by.",
        ),
        Code::ClusterAuthorizationFailed => (
            Whose::Server,
            "42501",
            "Let the user do this on the cluster: IdempotentWrite to send (before Kafka 2.8), \
             Create to make topics.",
        ),
        Code::TopicAuthorizationFailed => (
            Whose::Target,
            "42501",
            "Let the user Describe and Write the topic; and Create it, or make it beforehand. To \
             delete a topic it takes Delete, to check its cleanup_policy DescribeConfigs.",
        ),
        // While a client lives, records fail of `BrokerDestroy` when their partition goes away.
        Code::BrokerDestroy
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::UnknownTopicId => (
            Whose::Target,
            "HV00R", // fdw_table_not_found
            "The topic was deleted, or the user may not see it. The next try makes it again.",
        ),
        Code::InvalidTopic => {
            (Whose::Target, "42602", "Names that differ in \".\" and \"_\" alone clash.")
        }
        Code::InvalidPartitions | Code::InvalidReplicationFactor | Code::InvalidConfig => (
            Whose::Target,
            "22023",
            "Check partitions, replication_factor and config in the options of the target. There \
             cannot be more replicas than brokers.",
        ),
        Code::PolicyViolation => (
            Whose::Target,
            "53400",
            "The brokers have a rule for topics (create.topic.policy): make the topic as it says.",
        ),
        Code::InvalidTimestamp => (
            Whose::Target,
            "22008",
            "The clocks of this machine and the brokers differ by more than the topic allows.",
        ),
        Code::NotEnoughReplicas | Code::NotEnoughReplicasAfterAppend => (
            Whose::Target,
            "57P03",
            "Fewer replicas are in sync than min.insync.replicas of the topic asks for.",
        ),
        // The producer can no longer say what has arrived. A new one begins anew.
        Code::Fatal
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::GaplessGuarantee => (
            Whose::Target,
            "HV000",
            "The next try opens a new producer: if this goes on, look into the brokers' logs.",
        ),
        Code::UnsupportedVersion | Code::UnsupportedFeature | Code::UnsupportedCompressionType => {
            (Whose::Server, "0A000", "The brokers must be Kafka 0.11 or newer.")
        }
        Code::ThrottlingQuotaExceeded => {
            (Whose::Server, "53400", "The brokers have a quota for this user.")
        }
        _ => (Whose::Server, "HV000", ""),
    }
}

/// Whether a broker was not there, or has not answered in time.
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

/// What Kafka says of a code, such as "Broker: Topic authorization failed".
fn said(code: Code) -> String {
    let said = code.to_string();
    let words = said.split_once(" (").and_then(|(_, words)| words.strip_suffix(')'));
    words.unwrap_or(&said).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart() {
        let doing = Doing::Send("t");
        for (code, whose, sqlstate) in [
            (Code::MessageTimedOut, Whose::Server, "08006"),
            (Code::SaslAuthenticationFailed, Whose::Server, "28P01"),
            (Code::SSL, Whose::Server, "08001"),
            (Code::ClusterAuthorizationFailed, Whose::Server, "42501"),
            (Code::TopicAuthorizationFailed, Whose::Target, "42501"),
            (Code::UnknownTopic, Whose::Target, "HV00R"),
            (Code::BrokerDestroy, Whose::Target, "HV00R"),
            (Code::InvalidReplicationFactor, Whose::Target, "22023"),
            (Code::Fatal, Whose::Target, "HV000"),
            (Code::KafkaStorageError, Whose::Server, "HV000"),
        ] {
            let trouble = trouble(&doing, code, None);
            assert_eq!((trouble.whose, trouble.sqlstate.as_str()), (whose, sqlstate), "{code:?}");
            assert!(row(code).is_none(), "{code:?}");
        }
        assert_eq!(row(Code::MessageSizeTooLarge), Some("54000"));
        assert_eq!(row(Code::InvalidRecord), Some("22000"));
    }

    #[test]
    fn why_it_was_waited_is_told() {
        let heard = Heard { code: Code::Authentication, reason: "the reason".to_owned() };
        let trouble = trouble(&Doing::Make("t"), Code::OperationTimedOut, Some(heard));
        assert_eq!(trouble.sqlstate, "28P01");
        assert_eq!(trouble.detail.as_deref(), Some("the reason"));
        assert_eq!(trouble.message, "topic \"t\" could not be made: Local: Authentication failure");
    }

    #[test]
    fn the_value_of_a_setting_is_not_told() {
        let mut config = rdkafka::config::ClientConfig::new();
        config.set("security.protocol", "hush");
        let error = config.create_native_config().err().unwrap_or(KafkaError::Canceled);
        let trouble = of(&Doing::Open, &error, None);
        assert!(trouble.message.contains("security.protocol"), "{trouble:?}");
    }
}

//! The options of servers and user mappings, and the client settings that they determine.
//!
//! Some settings of librdkafka load libraries, run commands and read files (`plugin.library.paths`,
//! `sasl.kerberos.kinit.cmd`, `ssl.key.location`). So each setting that a user may choose has an
//! option of its own, and no setting is passed on by its librdkafka name.

use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use crate::targets::kafka::topic;
use crate::targets::options::{Access, OptionScope, OptionSpec, Options, check_boolean};
use coco_core::change::DeliveryError;

pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "bootstrap_servers",
        OptionScope::Server,
        "Some of the brokers, as host:port, separated by commas.",
    )
    .required()
    .check(brokers),
    OptionSpec::new(
        "security_protocol",
        OptionScope::Server,
        "plaintext (the default), ssl, sasl_plaintext or sasl_ssl.",
    )
    .check(|v| one_of(v, &SECURITY_PROTOCOLS)),
    OptionSpec::new(
        "sasl_mechanism",
        OptionScope::Server,
        "Method of authentication: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.",
    )
    .check(|v| one_of(v, &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])),
    OptionSpec::new(
        "sslrootcert",
        OptionScope::Server,
        "Certificates (PEM) to trust instead of the system's.",
    )
    .check(certificates),
    OptionSpec::new(
        "connect_timeout",
        OptionScope::Server,
        "Connection timeout in seconds, including TLS and SASL; 10 by default.",
    )
    .check(|v| seconds(v, 300)),
    OptionSpec::new(
        "request_timeout",
        OptionScope::Server,
        "Request timeout in seconds; 30 by default.",
    )
    .check(|v| seconds(v, 300)),
    OptionSpec::new(
        "delivery_timeout",
        OptionScope::Server,
        "Timeout in seconds for all records of a batch, including retries; 60 by default.",
    )
    .check(|v| seconds(v, 900)),
    OptionSpec::new("compression", OptionScope::Server, "none, gzip, snappy or lz4 (the default).")
        .check(|v| one_of(v, &["none", "gzip", "snappy", "lz4"])),
    OptionSpec::new(
        "linger",
        OptionScope::Server,
        "Milliseconds to wait for more records before those of a partition are sent; 5 by default.",
    )
    .check(|v| within(v, 0, 10_000)),
    OptionSpec::new(
        "max_message_bytes",
        OptionScope::Server,
        "Maximum bytes of a record before compression; 1000000 by default.",
    )
    .check(|v| within(v, 1000, 100_000_000)),
    OptionSpec::new("user", OptionScope::UserMapping, "User for SASL."),
    OptionSpec::new("password", OptionScope::UserMapping, "The password of user.").secret(),
    OptionSpec::new(
        "sslcert",
        OptionScope::UserMapping,
        "A client certificate (PEM), with its intermediate certificates.",
    )
    .check(certificates),
    OptionSpec::new("sslkey", OptionScope::UserMapping, "The private key (PEM) of sslcert.")
        .secret()
        .check(key),
    OptionSpec::new(
        "password_required",
        OptionScope::UserMapping,
        "false allows roles that are not superusers to use brokers without authentication.",
    )
    .superuser()
    .check(check_boolean),
    topic::PARTITIONS,
    topic::REPLICATION_FACTOR,
    topic::CLEANUP_POLICY,
    topic::CONFIG,
];

/// Maximum bytes of a broker's response. librdkafka's default is six times that.
const LONGEST_ANSWER: &str = "16777216";

const SECURITY_PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

fn brokers(value: &str) -> Result<(), String> {
    let broker = |text: &str| {
        let (host, port) = text.trim().rsplit_once(':')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let address = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let known = match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(plain),
        };
        (known && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(())
    };
    match value.split(',').all(|text| broker(text).is_some()) {
        true => Ok(()),
        false => Err("must be host:port, or several separated by commas".to_owned()),
    }
}

fn one_of(value: &str, of: &[&str]) -> Result<(), String> {
    match of.contains(&value) {
        true => Ok(()),
        false => Err(format!("must be one of {}", of.join(", "))),
    }
}

fn within(value: &str, least: u32, most: u32) -> Result<(), String> {
    match value.parse::<u32>() {
        Ok(n) if (least..=most).contains(&n) => Ok(()),
        _ => Err(format!("must be a whole number from {least} to {most}")),
    }
}

fn seconds(value: &str, most: u32) -> Result<(), String> {
    within(value, 1, most).map_err(|why| format!("{why}, in seconds"))
}

fn certificates(value: &str) -> Result<(), String> {
    match value.contains("-----BEGIN CERTIFICATE-----") {
        true => Ok(()),
        false => Err("must be certificates as PEM text, not the name of a file".to_owned()),
    }
}

fn key(value: &str) -> Result<(), String> {
    match value.contains("PRIVATE KEY-----") {
        true => Ok(()),
        false => Err("must be a private key as PEM text, not the name of a file".to_owned()),
    }
}

/// The settings of clients. They contain secrets, so there is no Debug.
pub struct Config {
    connection: ClientConfig,
    producing: Vec<(&'static str, String)>,
    pub request_timeout: Duration,
    pub delivery_timeout: Duration,
}

impl Config {
    /// Reads the options, which were checked one by one, and checks combinations.
    pub fn new(access: &Access) -> Result<Config, DeliveryError> {
        let Access { server, user, trusted } = access;
        let protocol = server.get("security_protocol").unwrap_or("plaintext");
        let (tls, sasl) = (protocol.ends_with("ssl"), protocol.starts_with("sasl"));

        let mut connection = ClientConfig::new();
        connection
            .set("bootstrap.servers", required(server, "bootstrap_servers")?)
            .set("security.protocol", protocol)
            .set("client.id", "coco")
            // With Nagle's algorithm, the end of a batch would wait until the broker has
            // acknowledged the previous packets in TCP.
            .set("socket.nagle.disable", "true")
            // coco asks brokers about one topic. The responses are far shorter.
            .set("receive.message.max.bytes", LONGEST_ANSWER)
            // Only `prepare` creates a topic, as it is declared.
            .set("allow.auto.create.topics", "false")
            // Brokers may request client metrics. Sending them would delay the end of a client.
            .set("enable.metrics.push", "false")
            // Errors arrive as events. Log lines would go to the stderr of the database server.
            .set("log_level", "0")
            .set_log_level(RDKafkaLogLevel::Emerg);
        let connect_timeout = number(server, "connect_timeout", 10)?;
        let request_timeout = number(server, "request_timeout", 30)?;
        connection
            .set("socket.connection.setup.timeout.ms", (connect_timeout * 1000).to_string())
            .set("socket.timeout.ms", (request_timeout * 1000).to_string());

        if sasl {
            connection
                .set("sasl.mechanisms", required(server, "sasl_mechanism")?)
                .set("sasl.username", required(user, "user")?)
                .set("sasl.password", required(user, "password")?);
        } else if user.get("user").or(user.get("password")).is_some() {
            return Err(invalid_options(
                "options \"user\" and \"password\" require a security_protocol with sasl",
            ));
        }
        for (option, setting) in [
            ("sslcert", "ssl.certificate.pem"),
            ("sslkey", "ssl.key.pem"),
            ("sslrootcert", "ssl.ca.pem"),
        ] {
            let Some(pem) = user.get(option).or(server.get(option)) else { continue };
            if !tls {
                return Err(invalid_options(format!(
                    "option \"{option}\" requires a security_protocol with ssl"
                )));
            }
            connection.set(setting, pem);
        }
        if tls {
            connection.set("ssl.endpoint.identification.algorithm", "https");
        }
        let certified = user.get("sslcert").is_some() && user.get("sslkey").is_some();
        if user.get("sslcert").is_some() != user.get("sslkey").is_some() {
            return Err(invalid_options("options \"sslcert\" and \"sslkey\" must be set together"));
        }
        if !(*trusted || sasl || certified || user.get("password_required") == Some("false")) {
            return Err(DeliveryError::server("2F003", "authentication is required")
                .detail(
                    "The flow's owner is not a superuser, and the brokers require no password or \
                     certificate.",
                )
                .hint(
                    "Use a security_protocol with sasl, or sslcert and sslkey, or ask a superuser \
                     to set password_required to false in the user mapping.",
                ));
        }

        let delivery_timeout = number(server, "delivery_timeout", 60)?;
        let max_message = number(server, "max_message_bytes", 1_000_000)?;
        let producing = vec![
            // Retries neither duplicate records nor change their order, and all in-sync replicas
            // acknowledge.
            ("enable.idempotence", "true".to_owned()),
            ("acks", "all".to_owned()),
            // The partition of a key is determined by the hash of the Java clients, so both agree.
            ("partitioner", "murmur2_random".to_owned()),
            ("compression.type", server.get("compression").unwrap_or("lz4").to_owned()),
            ("linger.ms", number(server, "linger", 5)?.to_string()),
            ("message.timeout.ms", (delivery_timeout * 1000).to_string()),
            // How long a topic may be missing, as one that was just created is for a moment. It is
            // less than `message.timeout.ms`, so that the error for a deleted topic is not a
            // timeout.
            ("topic.metadata.propagation.max.ms", (delivery_timeout * 500).min(30_000).to_string()),
            ("request.timeout.ms", (request_timeout * 1000).to_string()),
            ("message.max.bytes", max_message.to_string()),
            // Bounds memory: further records wait until earlier ones are acknowledged.
            ("queue.buffering.max.kbytes", (2 * max_message / 1024).max(64 << 10).to_string()),
        ];
        let (request_timeout, delivery_timeout) =
            (Duration::from_secs(request_timeout), Duration::from_secs(delivery_timeout));
        Ok(Config { connection, producing, request_timeout, delivery_timeout })
    }

    /// Returns the settings of a client that creates and deletes topics.
    pub fn admin(&self) -> &ClientConfig {
        &self.connection
    }

    /// Returns the settings of a client that reads a whole topic. It joins no group; librdkafka
    /// requires the name of one.
    pub fn reader(&self) -> ClientConfig {
        let mut config = self.connection.clone();
        config
            .set("group.id", "coco")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            // Less than the longest answer, as librdkafka requires; together they bound memory.
            .set("fetch.max.bytes", "8388608")
            .set("queued.max.messages.kbytes", "16384");
        config
    }

    /// Returns the settings of a client that sends records.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.connection.clone();
        for (setting, value) in &self.producing {
            config.set(*setting, value);
        }
        config
    }
}

fn invalid_options(message: impl Into<String>) -> DeliveryError {
    DeliveryError::server("HV024", message)
}

fn required<'a>(options: &'a Options, name: &str) -> Result<&'a str, DeliveryError> {
    options.get(name).ok_or_else(|| invalid_options(format!("option \"{name}\" is missing")))
}

fn number(options: &Options, name: &str, default: u64) -> Result<u64, DeliveryError> {
    let Some(text) = options.get(name) else { return Ok(default) };
    text.parse().map_err(|_| invalid_options(format!("option \"{name}\" must be a whole number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(of: &[(&str, &str)]) -> Options {
        Options(of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    fn config(
        server: &[(&str, &str)],
        user: &[(&str, &str)],
        trusted: bool,
    ) -> Result<Config, DeliveryError> {
        let mut server = options(server);
        server.0.insert("bootstrap_servers".to_owned(), "localhost:9092".to_owned());
        Config::new(&Access { server, user: options(user), trusted })
    }

    fn rejected(server: &[(&str, &str)], user: &[(&str, &str)], trusted: bool) -> String {
        config(server, user, trusted).err().map(|t| t.message).unwrap_or_default()
    }

    #[test]
    fn brokers_are_hosts_and_ports() {
        for good in ["a:1", "a.b-c_d:9092,10.0.0.1:65535", "[::1]:9092", "a:1, b:2"] {
            assert_eq!(brokers(good), Ok(()), "{good}");
        }
        let bad = [
            "",
            "a",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:1,",
            "SSL://a:1",
            "u:p@a:1",
            "u@a:1",
            "[a]:1",
        ];
        for bad in bad {
            assert!(brokers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_between_options_is_checked() {
        let sasl = ("security_protocol", "sasl_plaintext");
        let plain = ("sasl_mechanism", "PLAIN");
        let (name, word) = (("user", "u"), ("password", "hush"));
        assert!(config(&[sasl, plain], &[name, word], false).is_ok());
        assert!(rejected(&[sasl], &[name, word], true).contains("sasl_mechanism"));
        assert!(rejected(&[sasl, plain], &[word], true).contains("\"user\""));
        assert!(rejected(&[sasl, plain], &[name], true).contains("\"password\""));
        assert!(rejected(&[], &[name, word], true).contains("sasl"));
        assert!(rejected(&[("sslrootcert", "x")], &[], true).contains("sslrootcert"));
        assert!(
            rejected(&[("security_protocol", "ssl")], &[("sslcert", "x")], true).contains("sslkey")
        );
    }

    #[test]
    fn others_than_superusers_have_to_say_who_they_are() {
        let ssl = ("security_protocol", "ssl");
        assert!(config(&[], &[], true).is_ok());
        assert_eq!(config(&[], &[], false).err().map(|t| t.sqlstate).as_deref(), Some("2F003"));
        assert!(config(&[ssl], &[], false).is_err());
        assert!(config(&[ssl], &[("sslcert", "c"), ("sslkey", "k")], false).is_ok());
        assert!(config(&[], &[("password_required", "false")], false).is_ok());
        assert!(config(&[], &[("password_required", "true")], false).is_err());
    }

    #[test]
    fn each_setting_is_one_that_librdkafka_knows() {
        let server = [
            ("security_protocol", "sasl_ssl"),
            ("sasl_mechanism", "SCRAM-SHA-512"),
            ("compression", "gzip"),
            ("max_message_bytes", "100000000"),
            ("connect_timeout", "300"),
            ("request_timeout", "300"),
            ("delivery_timeout", "900"),
            ("linger", "10000"),
        ];
        let config = config(&server, &[("user", "u"), ("password", "p")], true);
        let config = config.unwrap_or_else(|t| panic!("{t:?}")).producer();
        let native = config.create_native_config().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(native.get("allow.auto.create.topics").as_deref(), Ok("false"));
        assert_eq!(native.get("message.timeout.ms").as_deref(), Ok("900000"));
    }
}

//! The options of servers, user mappings and targets.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::mapping;
use crate::targets::options::{
    Access, OptionScope, OptionSpec, Options, check_boolean, check_positive,
};
use coco_core::change::DeliveryError;

const CONNECT_TIMEOUT: u64 = 10;
const REQUEST_TIMEOUT: u64 = 60;
const PORT: u16 = 7687;

pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "url",
        OptionScope::Server,
        "URL of the server: bolt://host:7687, or bolt+s:// for TLS.",
    )
    .required()
    .check(url),
    OptionSpec::new(
        "database",
        OptionScope::Server,
        "Database on the server; by default, the user's home database.",
    )
    .check(not_empty),
    OptionSpec::new(
        "connect_timeout",
        OptionScope::Server,
        "Connection timeout in seconds; 10 by default.",
    )
    .check(check_positive),
    OptionSpec::new(
        "request_timeout",
        OptionScope::Server,
        "Request timeout in seconds; 60 by default.",
    )
    .check(check_positive),
    OptionSpec::new(
        "sslrootcert",
        OptionScope::Server,
        "Certificates to trust instead of the system's, as PEM text, for bolt+s:// and neo4j+s://.",
    )
    .check(certificates),
    OptionSpec::new("user", OptionScope::UserMapping, "The Neo4j user.")
        .required()
        .check(not_empty),
    OptionSpec::new("password", OptionScope::UserMapping, "The user's password.")
        .required()
        .secret(),
    OptionSpec::new(
        "kind",
        OptionScope::Target,
        "What a row becomes: node (the default) or relationship.",
    )
    .fixed()
    .check(mapping::check_kind),
    OptionSpec::new(
        "label",
        OptionScope::Target,
        "The nodes' label; the target's name by default.",
    )
    .fixed()
    .check(mapping::check_name),
    OptionSpec::new(
        "type",
        OptionScope::Target,
        "The relationships' type; the target's name by default.",
    )
    .fixed()
    .check(mapping::check_name),
    OptionSpec::new(
        "from",
        OptionScope::Target,
        "The nodes that relationships start at: {\"label\": …, \"key\": {column: property, …}}.",
    )
    .fixed()
    .check(mapping::check_endpoint),
    OptionSpec::new(
        "to",
        OptionScope::Target,
        "The nodes that relationships end at, written as in from.",
    )
    .fixed()
    .check(mapping::check_endpoint),
    OptionSpec::new(
        "temporal",
        OptionScope::Target,
        "true writes dates and times as Neo4j's own types; otherwise they are text.",
    )
    .check(check_boolean),
];

/// The settings of a connection. They contain the password, so there is no `Debug`.
pub struct Settings {
    pub url: String,
    pub user: String,
    pub password: String,
    pub database: Option<String>,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
    /// Certificates as PEM text to trust instead of the system's.
    pub roots: Option<String>,
}

impl Settings {
    /// Reads the options, which were checked one by one. Checks the URL again, because a connection
    /// depends on it.
    pub fn new(access: &Access) -> Result<Settings, DeliveryError> {
        let server = |name: &str| access.server.get(name).map(str::to_owned);
        let settings = Settings {
            url: required(&access.server, "url", "the server")?,
            user: required(&access.user, "user", "the user mapping")?,
            password: required(&access.user, "password", "the user mapping")?,
            database: server("database"),
            connect_timeout: seconds(&access.server, "connect_timeout", CONNECT_TIMEOUT),
            request_timeout: seconds(&access.server, "request_timeout", REQUEST_TIMEOUT),
            roots: server("sslrootcert"),
        };
        url(&settings.url).map_err(|wrong| invalid(format!("option \"url\" {wrong}")))?;
        if settings.roots.is_some() && !settings.encrypted() {
            return Err(invalid("option \"sslrootcert\" is set, but the url does not use TLS")
                .hint("Begin the url with bolt+s:// or neo4j+s://, or remove sslrootcert."));
        }
        Ok(settings)
    }

    /// Returns the host and port of the URL. The port is 7687 by default.
    pub fn host_and_port(&self) -> (String, u16) {
        let address = self.address();
        let (host, port) = match address.rsplit_once(':') {
            // The last colon of an address such as [::1] does not precede a port.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (address, None),
        };
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        (host.to_owned(), port.unwrap_or(PORT))
    }

    /// Returns the address to send to the server if it may route requests to another member of its
    /// cluster.
    pub fn routed_address(&self) -> Option<&str> {
        self.url.starts_with("neo4j").then(|| self.address())
    }

    fn address(&self) -> &str {
        self.url.split_once("://").map_or(self.url.as_str(), |(_, address)| address)
    }

    /// Reports whether the connection is encrypted, and the server's certificate verified.
    pub fn encrypted(&self) -> bool {
        self.url.split_once("://").is_some_and(|(scheme, _)| scheme.ends_with("+s"))
    }
}

fn required(options: &Options, name: &str, of: &str) -> Result<String, DeliveryError> {
    let value = options.get(name).map(str::to_owned);
    value.ok_or_else(|| invalid(format!("option \"{name}\" of {of} is missing")))
}

fn seconds(options: &Options, name: &str, default: u64) -> Duration {
    Duration::from_secs(options.get(name).and_then(|s| s.parse().ok()).unwrap_or(default))
}

/// Returns an fdw_invalid_attribute_value error.
fn invalid(message: impl Into<String>) -> DeliveryError {
    DeliveryError::server("HV024", message)
}

fn not_empty(value: &str) -> Result<(), String> {
    if value.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }
}

fn url(value: &str) -> Result<(), String> {
    let (scheme, rest) = value.split_once("://").unwrap_or(("", value));
    // The client would silently ignore a user in the URL.
    if rest.contains('@') {
        return Err(
            "must not contain a user or a password: these belong in the user mapping".into()
        );
    }
    match scheme {
        "bolt" | "bolt+s" | "neo4j" | "neo4j+s" => {}
        "bolt+ssc" | "neo4j+ssc" => {
            return Err(
                "must not trust any certificate: use +s, and set a self-signed certificate as \
                 sslrootcert"
                    .into(),
            );
        }
        _ => return Err("must begin with bolt://, bolt+s://, neo4j:// or neo4j+s://".into()),
    }
    let port = match rest.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port,
        _ => "7687",
    };
    let host_only = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if rest.is_empty() || rest.starts_with(':') || !rest.chars().all(host_only) {
        return Err("must contain only a host and an optional port".into());
    }
    if port.parse::<u16>().is_err() {
        return Err("must have a port from 0 to 65535".into());
    }
    Ok(())
}

fn certificates(pem: &str) -> Result<(), String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(()),
        _ => Err("must be certificates as PEM text, not the name of a file".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_servers_are_taken_and_others_are_not() {
        for good in
            ["bolt://h", "bolt+s://db.example.com:7687", "neo4j://[::1]", "neo4j+s://[::1]:1"]
        {
            assert_eq!(url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "h:7687",
            "http://h",
            "bolt://",
            "bolt://:7687",
            "bolt://u:p@h",
            "bolt://h/db",
            "bolt://h?x=1",
            "bolt+ssc://h",
            "bolt://h:99999",
            "bolt://h:",
            "bolt://h h",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
        assert!(!url("bolt://u:geheim@h").unwrap_err().contains("geheim"));
    }

    #[test]
    fn a_certificate_is_its_text() {
        assert!(certificates("/etc/ssl/ca.pem").is_err());
        assert!(certificates("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----").is_err());
    }
}

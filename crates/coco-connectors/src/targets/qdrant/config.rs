//! The options of servers, user mappings and targets.

use std::collections::BTreeMap;
use std::time::Duration;

use qdrant_client::qdrant::Distance;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Uri};

use crate::targets::options::{Access, OptionScope, OptionSpec, check_positive};
use coco_core::change::DeliveryError;

/// Qdrant's default port for gRPC.
const PORT: u16 = 6334;
const CONNECT_TIMEOUT: u32 = 10;
const REQUEST_TIMEOUT: u32 = 60;
/// Maximum bytes of a response's headers, which contain the reason of an error.
const LONGEST_HEADERS: u32 = 64 * 1024;

/// All options. Their values are checked one by one.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "url",
        OptionScope::Server,
        "URL of Qdrant's gRPC port: http://host:6334, or https:// for TLS. The default port is \
         6334.",
    )
    .required()
    .check(|value| uri(value).map(drop)),
    OptionSpec::new(
        "connect_timeout",
        OptionScope::Server,
        "Connection timeout in seconds; 10 by default.",
    )
    .check(check_positive),
    OptionSpec::new(
        "request_timeout",
        OptionScope::Server,
        "Request timeout in seconds, from the start of a request to the end of its answer; 60 by \
         default.",
    )
    .check(check_positive),
    OptionSpec::new(
        "sslrootcert",
        OptionScope::Server,
        "Certificates (PEM) to trust instead of the system's.",
    )
    .check(certificates),
    OptionSpec::new("api_key", OptionScope::UserMapping, "Qdrant's API key, or a JSON Web Token.")
        .secret()
        .check(|value| api_key(value).map(drop)),
    OptionSpec::new(
        "vectors",
        OptionScope::Target,
        "Vector columns, as a JSON object with the distance (cosine, dot, euclid or manhattan), \
         size and name of each.",
    )
    .fixed()
    .check(|value| vectors(value).map(drop)),
];

/// The endpoint and credentials of a server. It contains a secret, so it has no Debug.
pub struct Config {
    /// The endpoint, with TLS and the connection timeout.
    pub endpoint: Endpoint,
    /// Maximum time from the start of a request to the end of its response.
    pub request_timeout: Duration,
    pub api_key: Option<MetadataValue<Ascii>>,
}

impl Config {
    /// Reads the options, which were checked one by one, and checks combinations.
    pub fn of(access: &Access) -> Result<Config, DeliveryError> {
        let wrong = |name: &str, what: String| {
            DeliveryError::server("HV024", format!("option \"{name}\" {what}"))
        };
        let url = access.server.get("url").unwrap_or_default();
        let uri = uri(url).map_err(|what| wrong("url", what))?;
        let seconds = |name, default| {
            let seconds = access.server.get(name).and_then(|s| s.parse().ok()).unwrap_or(default);
            Duration::from_secs(u64::from(seconds))
        };
        let tls = uri.scheme_str() == Some("https");
        let connect_timeout = seconds("connect_timeout", CONNECT_TIMEOUT);
        let request_timeout = seconds("request_timeout", REQUEST_TIMEOUT);
        let mut endpoint = Endpoint::from(uri)
            .connect_timeout(connect_timeout)
            .http2_max_header_list_size(LONGEST_HEADERS);
        let authorities = access.server.get("sslrootcert");
        if authorities.is_some() && !tls {
            return Err(wrong("sslrootcert", "requires a url that starts with https".to_owned()));
        }
        if tls {
            let trust = match authorities {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            endpoint = endpoint.tls_config(trust).map_err(|e| {
                DeliveryError::server(
                    "HV000",
                    "no root certificates to verify the server's certificate",
                )
                .detail(e.to_string())
                .hint(
                    "Install root certificates in the system (Debian: ca-certificates), or set \
                     sslrootcert.",
                )
            })?;
        }
        let api_key = access.user.get("api_key").map(api_key).transpose();
        let api_key = api_key.map_err(|what| wrong("api_key", what))?;
        // Qdrant without a key trusts everyone who connects from the database's host. Only a
        // superuser may use that.
        if api_key.is_none() && !access.trusted {
            return Err(DeliveryError::server("28000", "API key is required").hint(
                "Set the API key with CREATE USER MAPPING … OPTIONS (api_key '…'). Only the flows \
                 of superusers may connect without a key.",
            ));
        }
        Ok(Config { endpoint, request_timeout, api_key })
    }
}

/// Returns the URL with its port. The error does not contain the value, which may include a
/// password.
fn uri(value: &str) -> Result<Uri, String> {
    let uri: Uri = value.parse().map_err(|_| "must be a URL".to_owned())?;
    let scheme = match uri.scheme_str() {
        Some(scheme @ ("http" | "https")) => scheme,
        _ => return Err("must start with http:// or https://".to_owned()),
    };
    let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
    if authority.contains('@') {
        return Err("must not have a user or password: api_key is for the user mapping".to_owned());
    }
    if uri.path_and_query().is_some_and(|path| path != "/") {
        return Err("must end after host and port: gRPC has no path".to_owned());
    }
    let with_port = match uri.port() {
        Some(_) => format!("{scheme}://{authority}"),
        None => format!("{scheme}://{}:{PORT}", authority.trim_end_matches(':')),
    };
    with_port.parse().map_err(|_| "must be a URL".to_owned())
}

fn certificates(pem: &str) -> Result<(), String> {
    let wrong = |why: &str| format!("must be certificates as PEM text: {why}");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| wrong(&e.to_string()))?;
        roots.add(certificate).map_err(|e| wrong(&e.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(wrong("there are none")),
        false => Ok(()),
    }
}

/// Returns the key as it is sent, hidden in debug output.
fn api_key(value: &str) -> Result<MetadataValue<Ascii>, String> {
    let visible = !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic());
    let value = visible.then(|| MetadataValue::try_from(value).ok()).flatten();
    let mut value = value.ok_or_else(|| "must be visible ASCII characters".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// The settings of one column in the target option `vectors`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorOption {
    #[serde(default)]
    pub distance: Metric,
    /// Dimensions, if the column's type does not define them.
    pub size: Option<u64>,
    pub name: Option<String>,
}

/// The distance function between vectors.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    #[default]
    Cosine,
    Dot,
    Euclid,
    Manhattan,
}

impl From<Metric> for Distance {
    fn from(metric: Metric) -> Distance {
        match metric {
            Metric::Cosine => Distance::Cosine,
            Metric::Dot => Distance::Dot,
            Metric::Euclid => Distance::Euclid,
            Metric::Manhattan => Distance::Manhattan,
        }
    }
}

/// Parses the target option `vectors`: settings by column.
pub fn vectors(json: &str) -> Result<BTreeMap<String, VectorOption>, String> {
    serde_json::from_str(json).map_err(|e| {
        format!(
            "must be a JSON object such as {{\"embedding\": {{\"distance\": \"cosine\", \"size\": \
             384}}}}: {e}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gets_the_port_of_grpc() {
        let with_port = |url: &str| uri(url).expect("a URL").to_string();
        assert_eq!(with_port("http://localhost"), "http://localhost:6334/");
        assert_eq!(with_port("https://[::1]/"), "https://[::1]:6334/");
        assert_eq!(with_port("http://10.0.0.1:7000/"), "http://10.0.0.1:7000/");
    }

    #[test]
    fn urls_that_would_not_do_what_they_say_are_refused() {
        for url in [
            "",
            "localhost:6334",
            "ftp://localhost",
            "unix:///run/qdrant",
            "http://",
            "http://me:secret@localhost",
            "http://localhost/prefix",
            "http://localhost?key=secret",
        ] {
            let why = uri(url).expect_err(url);
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn a_key_is_sent_as_it_is_or_refused() {
        for bad in ["", "two words", "new\nline", "schlüssel"] {
            assert!(api_key(bad).is_err(), "{bad:?}");
        }
        let key = api_key("s3cret.+/=").expect("a key");
        assert_eq!(key.to_str().ok(), Some("s3cret.+/="));
        assert!(!format!("{key:?}").contains("s3cret"));
    }

    #[test]
    fn options_of_vectors_are_read_strictly() {
        let read = vectors(r#"{"v": {"distance": "dot", "size": 3, "name": "n"}, "w": {}}"#);
        let read = read.expect("options");
        assert_eq!(read["v"].size, Some(3));
        assert_eq!(Distance::from(read["w"].distance), Distance::Cosine);
        for bad in ["[]", r#"{"v": {"distance": "l2"}}"#, r#"{"v": {"dim": 3}}"#, "{"] {
            assert!(vectors(bad).is_err(), "{bad}");
        }
    }
}

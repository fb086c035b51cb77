//! The options of an HTTP server, and the endpoint that they describe.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;

use super::headers;
use super::peer::Peer;
use super::sign::Signer;
use coco_core::change::DeliveryError;
use coco_core::options::{Access, OptionScope, OptionSpec};

const CONNECT_TIMEOUT: u64 = 10;
const REQUEST_TIMEOUT: u64 = 60;
const LONGEST_TIMEOUT: u64 = 3600;

/// The timeout options of a server.
pub const CONNECT: OptionSpec = OptionSpec::new(
    "connect_timeout",
    OptionScope::Server,
    "Connection timeout in seconds, including TLS; 10 by default.",
)
.check(|text| seconds(text).map(drop));
pub const REQUEST: OptionSpec = OptionSpec::new(
    "request_timeout",
    OptionScope::Server,
    "Request timeout in seconds, from the start of a request to the end of its answer; 60 by \
     default.",
)
.check(|text| seconds(text).map(drop));

/// The URL and credentials for requests. It contains secrets, so it has no Debug.
pub struct Endpoint {
    pub url: Url,
    /// Headers of each request.
    pub headers: HeaderMap,
    pub signer: Option<Signer>,
    /// Root certificates as PEM.
    pub root_certificates: Option<String>,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
    pub peer: Peer,
}

impl Endpoint {
    /// Reads the options. Each option was checked separately before; this function also checks
    /// combinations.
    ///
    /// [`Access::trusted`] has no effect. A PostgreSQL server shows whether it has asked for the
    /// password; an HTTP server does not. USAGE on the server decides who may post to its URL.
    pub fn new(access: &Access) -> Result<Endpoint, DeliveryError> {
        let (server, user) = (&access.server, &access.user);
        let url = server.get("url").map_or(Err("is missing".to_owned()), url);
        let url = url.map_err(|why| wrong("url", &why))?;

        let root_certificates = server.get("sslrootcert").map(str::to_owned);
        if root_certificates.is_some() && url.scheme() != "https" {
            return Err(wrong("sslrootcert", "is given, but the url does not start with https"));
        }

        let headers = server.get("headers").map_or(Ok(HeaderMap::new()), headers::parse);
        let mut headers = headers.map_err(|why| wrong("headers", &why))?;
        let mut secrets = headers::add_credentials(&mut headers, server, user).map_err(|why| {
            DeliveryError::server("HV024", format!("the options of the user mapping {why}"))
                .hint("Set only one of bearer_token, user with password, and api_key.")
        })?;
        secrets.extend(
            ["password", "hmac_secret"].iter().filter_map(|n| user.get(n)).map(str::to_owned),
        );

        let signer = match user.get("hmac_secret").map(Signer::new) {
            Some(None) => return Err(wrong("hmac_secret", "cannot be a key")),
            signer => signer.flatten(),
        };
        let timeout = |name, default| {
            let text = server.get(name).map_or(Ok(Duration::from_secs(default)), seconds);
            text.map_err(|why| wrong(name, &why))
        };
        Ok(Endpoint {
            connect_timeout: timeout("connect_timeout", CONNECT_TIMEOUT)?,
            request_timeout: timeout("request_timeout", REQUEST_TIMEOUT)?,
            peer: Peer::new(&url, &secrets),
            url,
            headers,
            signer,
            root_certificates,
        })
    }
}

/// Returns the error for an invalid option. `why` continues the sentence after the option's name.
pub fn wrong(option: &str, why: &str) -> DeliveryError {
    DeliveryError::server("HV024", format!("option \"{option}\" {why}"))
}

/// Parses a URL. No error repeats the text: it may contain a password.
pub fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("must be a URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must start with http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must have no user or password: they belong in the user mapping".to_owned());
    }
    if url.fragment().is_some() {
        return Err("must have no fragment (#…): it is never sent".to_owned());
    }
    Ok(url)
}

/// Parses a timeout.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(n) if (1..=LONGEST_TIMEOUT).contains(&n) => Ok(Duration::from_secs(n)),
        _ => Err(format!("must be a whole number of seconds, from 1 to {LONGEST_TIMEOUT}")),
    }
}

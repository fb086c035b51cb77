//! The options of a webhook, and what is made of them.

use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderMap;

use super::peer::Peer;
use super::sign::Signer;
use super::{headers, tls};
use crate::engine::delivery::Trouble;
use crate::targets::options::{Access, On, Spec, positive};

const CONNECT_TIMEOUT: u64 = 10;
const REQUEST_TIMEOUT: u64 = 60;
const LONGEST_TIMEOUT: u64 = 3600;

pub const OPTIONS: &[Spec] = &[
    Spec::new("url", On::Server, "Where changes are posted to.")
        .required()
        .check(|text| url(text).map(drop)),
    Spec::new(
        "connect_timeout",
        On::Server,
        "Seconds for connecting, TLS included; 10 by default.",
    )
    .check(|text| seconds(text).map(drop)),
    Spec::new(
        "request_timeout",
        On::Server,
        "Seconds from the start of a request to the end of its answer; 60 by default.",
    )
    .check(|text| seconds(text).map(drop)),
    Spec::new("batch_size", On::Server, "How many changes a request has at most.").check(positive),
    Spec::new(
        "headers",
        On::Server,
        "Headers of each request, as a JSON object of names and values. No secrets: every role can \
         read the options of a server.",
    )
    .check(|text| headers::given(text).map(drop)),
    Spec::new("api_key_header", On::Server, "The header of api_key; X-API-Key by default.")
        .check(|text| headers::name(text).map(drop)),
    Spec::new("sslrootcert", On::Server, "Certificates, as PEM, to trust instead of the system's.")
        .check(|text| tls::given(text).map(drop)),
    Spec::new("bearer_token", On::UserMapping, "Sent as Authorization: Bearer.")
        .secret()
        .check(headers::secret),
    Spec::new("user", On::UserMapping, "Sent, with password, as Authorization: Basic.")
        .check(headers::user),
    Spec::new("password", On::UserMapping, "The password of user.").secret(),
    Spec::new("api_key", On::UserMapping, "Sent in the header that api_key_header names.")
        .secret()
        .check(headers::secret),
    Spec::new("hmac_secret", On::UserMapping, "Requests are signed with it in X-Coco-Signature.")
        .secret()
        .check(headers::not_empty),
];

/// How to reach a webhook. It has secrets, and so no Debug.
pub struct Config {
    pub url: Url,
    /// Of each request.
    pub headers: HeaderMap,
    pub signer: Option<Signer>,
    /// PEM.
    pub root_certificates: Option<String>,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
    /// Changes in a request, at least 1.
    pub batch_size: usize,
    pub peer: Peer,
}

impl Config {
    /// Each option has been checked by itself; here is also what is between them.
    ///
    /// [`Access::trusted`] makes no difference. A server of Postgres says whether it has asked for
    /// the password; of a webhook one cannot know. Who may post to a URL, USAGE on its server says.
    pub fn new(access: &Access) -> Result<Config, Trouble> {
        let (server, user) = (&access.server, &access.user);
        let url = server.get("url").map_or(Err("is missing".to_owned()), url);
        let url = url.map_err(|why| wrong("url", &why))?;

        let root_certificates = server.get("sslrootcert").map(str::to_owned);
        if root_certificates.is_some() && url.scheme() != "https" {
            return Err(wrong("sslrootcert", "is given, but the url does not start with https"));
        }

        let headers = server.get("headers").map_or(Ok(HeaderMap::new()), headers::given);
        let mut headers = headers.map_err(|why| wrong("headers", &why))?;
        let mut secrets = headers::add_credentials(&mut headers, server, user).map_err(|why| {
            Trouble::server("HV024", format!("the options of the user mapping {why}"))
                .hint("Give one of bearer_token, user with password, and api_key.")
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
        let batch_size = match server.get("batch_size").map(str::parse) {
            None => usize::MAX,
            Some(Ok(size)) if size > 0 => size,
            Some(_) => return Err(wrong("batch_size", "must be a whole number above 0")),
        };
        Ok(Config {
            connect_timeout: timeout("connect_timeout", CONNECT_TIMEOUT)?,
            request_timeout: timeout("request_timeout", REQUEST_TIMEOUT)?,
            peer: Peer::new(&url, secrets),
            url,
            headers,
            signer,
            root_certificates,
            batch_size,
        })
    }
}

/// An option that cannot be used, in a trouble's form: `why` goes on after its name.
pub fn wrong(option: &str, why: &str) -> Trouble {
    Trouble::server("HV024", format!("option \"{option}\" {why}"))
}

/// No error repeats the text: it may be one with a password.
fn url(text: &str) -> Result<Url, String> {
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

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(n) if (1..=LONGEST_TIMEOUT).contains(&n) => Ok(Duration::from_secs(n)),
        _ => Err(format!("must be a whole number of seconds, from 1 to {LONGEST_TIMEOUT}")),
    }
}

//! The options of a webhook, and what is made of them.

use crate::net::endpoint::{self, Endpoint, wrong};
use crate::net::{headers, tls};
use coco_core::delivery::Trouble;
use coco_core::options::{Access, On, Spec, hundred, positive};

pub const OPTIONS: &[Spec] = &[
    Spec::new("url", On::Server, "Where changes are posted to.")
        .required()
        .check(|text| endpoint::url(text).map(drop)),
    endpoint::CONNECT,
    endpoint::REQUEST,
    Spec::new("batch_size", On::Server, "How many changes a request has at most.").check(positive),
    Spec::new(
        "concurrency",
        On::Server,
        "How many requests coco.http_post makes at once; 16 by default.",
    )
    .check(positive),
    Spec::new(
        "requests_per_minute",
        On::Server,
        "How many requests a process makes in a minute with coco.http_post.",
    )
    .check(positive),
    Spec::new(
        "max_retries",
        On::Server,
        "How often coco.http_post makes a request again that was not answered; 5 by default.",
    )
    .check(hundred),
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

/// How to reach a webhook.
pub struct Config {
    pub endpoint: Endpoint,
    /// Changes in a request, at least 1.
    pub batch_size: usize,
}

impl Config {
    pub fn new(access: &Access) -> Result<Config, Trouble> {
        let endpoint = Endpoint::new(access)?;
        let batch_size = match access.server.get("batch_size").map(str::parse) {
            None => usize::MAX,
            Some(Ok(size)) if size > 0 => size,
            Some(_) => return Err(wrong("batch_size", "must be a whole number above 0")),
        };
        Ok(Config { endpoint, batch_size })
    }
}

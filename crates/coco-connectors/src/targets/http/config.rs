//! The options of a webhook.

use super::encode::SentDigests;
use super::verify;
use crate::net::endpoint::{self, Endpoint, wrong};
use crate::net::{headers, tls};
use coco_core::change::DeliveryError;
use coco_core::options::{
    Access, OptionScope, OptionSpec, check_at_most_100, check_boolean, check_positive,
};

pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("url", OptionScope::Server, "URL that receives the changes.")
        .required()
        .check(|text| endpoint::url(text).map(drop)),
    endpoint::CONNECT,
    endpoint::REQUEST,
    OptionSpec::new("batch_size", OptionScope::Server, "Maximum number of changes in a request.")
        .check(check_positive),
    OptionSpec::new(
        "concurrency",
        OptionScope::Server,
        "Maximum number of concurrent requests of coco.http_post; 16 by default.",
    )
    .check(check_positive),
    OptionSpec::new(
        "requests_per_minute",
        OptionScope::Server,
        "Maximum number of requests that a process sends per minute with coco.http_post.",
    )
    .check(check_positive),
    OptionSpec::new(
        "max_retries",
        OptionScope::Server,
        "Maximum number of retries of coco.http_post if a request gets no answer; 5 by default.",
    )
    .check(check_at_most_100),
    OptionSpec::new(
        "headers",
        OptionScope::Server,
        "Headers of each request, as a JSON object of names and values. No secrets: every role can \
         read the options of a server.",
    )
    .check(|text| headers::parse(text).map(drop)),
    OptionSpec::new(
        "api_key_header",
        OptionScope::Server,
        "Header that contains api_key; X-API-Key by default.",
    )
    .check(|text| headers::parse_name(text).map(drop)),
    OptionSpec::new(
        "sslrootcert",
        OptionScope::Server,
        "Certificates, as PEM, to trust instead of the system's.",
    )
    .check(|text| tls::parse(text).map(drop)),
    OptionSpec::new(
        verify::OPTION,
        OptionScope::Server,
        "true sends digests with each change; the receiver stores them, and answers requests for \
         them.",
    )
    .check(check_boolean),
    OptionSpec::new("bearer_token", OptionScope::UserMapping, "Sent as Authorization: Bearer.")
        .secret()
        .check(headers::check_secret),
    OptionSpec::new(
        "user",
        OptionScope::UserMapping,
        "Sent, with password, as Authorization: Basic.",
    )
    .check(headers::check_user),
    OptionSpec::new("password", OptionScope::UserMapping, "The password of user.").secret(),
    OptionSpec::new(
        "api_key",
        OptionScope::UserMapping,
        "Sent in the header that api_key_header names.",
    )
    .secret()
    .check(headers::check_secret),
    OptionSpec::new(
        "hmac_secret",
        OptionScope::UserMapping,
        "Secret of the signature in X-Coco-Signature.",
    )
    .secret()
    .check(headers::check_not_empty),
];

/// The endpoint and batch size of a webhook.
pub struct Config {
    pub endpoint: Endpoint,
    /// Changes per request, at least 1.
    pub batch_size: usize,
    pub digests: SentDigests,
}

impl Config {
    pub fn new(access: &Access) -> Result<Config, DeliveryError> {
        let endpoint = Endpoint::new(access)?;
        let batch_size = match access.server.get("batch_size").map(str::parse) {
            None => usize::MAX,
            Some(Ok(size)) if size > 0 => size,
            Some(_) => return Err(wrong("batch_size", "must be a whole number greater than 0")),
        };
        let digests = match access.server.get(verify::OPTION) {
            Some("true") => SentDigests::Included,
            _ => SentDigests::Omitted,
        };
        Ok(Config { endpoint, batch_size, digests })
    }
}

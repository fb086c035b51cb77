//! The options of a server that embeds and generates.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::budget::Prices;
use crate::net::endpoint::{self, Endpoint, wrong};
use crate::net::{headers, tls};
use coco_core::change::DeliveryError;
use coco_core::options::{
    Access, OptionScope, OptionSpec, Options, check_at_most_100, check_positive,
};
use coco_core::provider::Task;

const BATCH_SIZE: usize = 64;
const CONCURRENCY: usize = 16;
const MAX_RETRIES: u32 = 5;

pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "url",
        OptionScope::Server,
        "Base URL to which paths such as /embeddings are added, for example \
         https://api.openai.com/v1.",
    )
    .required()
    .check(check_base_url),
    endpoint::CONNECT,
    endpoint::REQUEST,
    OptionSpec::new(
        "batch_size",
        OptionScope::Server,
        "Maximum number of texts that a request embeds; 64 by default.",
    )
    .check(check_positive),
    OptionSpec::new(
        "concurrency",
        OptionScope::Server,
        "Maximum number of concurrent requests; 16 by default.",
    )
    .check(check_positive),
    OptionSpec::new(
        "max_retries",
        OptionScope::Server,
        "Maximum number of retries if a request gets no answer, or an invalid one; 5 by default.",
    )
    .check(check_at_most_100),
    OptionSpec::new(
        "requests_per_minute",
        OptionScope::Server,
        "Maximum number of requests that a process sends per minute.",
    )
    .check(check_positive),
    OptionSpec::new(
        "tokens_per_minute",
        OptionScope::Server,
        "Maximum number of tokens that a process uses per minute, including those of answers.",
    )
    .check(check_positive),
    OptionSpec::new(
        "price_per_million_input_tokens",
        OptionScope::Server,
        "Price of a million input tokens, in any currency; 0 by default.",
    )
    .check(|text| read_amount(text).map(drop)),
    OptionSpec::new(
        "price_per_million_output_tokens",
        OptionScope::Server,
        "Price of a million output tokens; 0 by default.",
    )
    .check(|text| read_amount(text).map(drop)),
    OptionSpec::new(
        "spending_cap",
        OptionScope::Server,
        "Spending limit, in the currency of the prices.",
    )
    .check(|text| read_amount(text).map(drop)),
    OptionSpec::new(
        "parameters",
        OptionScope::Server,
        "Fields of each generation request, as a JSON object such as {\"max_tokens\": 500}; null \
         removes a field that coco sets.",
    )
    .check(|text| parse_parameters(text).map(drop)),
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
        "Header that contains api_key unchanged; by default, api_key is sent as Authorization: \
         Bearer.",
    )
    .check(|text| headers::parse_name(text).map(drop)),
    OptionSpec::new(
        "sslrootcert",
        OptionScope::Server,
        "Certificates, as PEM, to trust instead of the system's.",
    )
    .check(|text| tls::parse(text).map(drop)),
    OptionSpec::new("api_key", OptionScope::UserMapping, "API key of the user at the provider.")
        .secret()
        .check(headers::check_secret),
];

/// The limits, prices and parameters of a server's requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Inputs per request, at least 1.
    pub batch_size: usize,
    /// Concurrent requests, at least 1.
    pub concurrency: usize,
    pub max_retries: u32,
    pub requests_per_minute: Option<f64>,
    pub tokens_per_minute: Option<f64>,
    pub prices: Prices,
    pub spending_cap: Option<f64>,
    pub parameters: Map<String, Value>,
}

impl Config {
    /// Reads the options. Each option was checked separately before. A service has no prices.
    pub fn new(task: &Task, server: &Options) -> Result<Config, DeliveryError> {
        let batch_size = match task {
            // A webhook's option `batch_size` counts changes.
            Task::Post { .. } | Task::Generate { .. } => 1,
            Task::Embed { .. } => {
                read_option(server, "batch_size", read_count)?.unwrap_or(BATCH_SIZE)
            }
        };
        let price = |name| read_option(server, name, read_amount).map(Option::unwrap_or_default);
        Ok(Config {
            batch_size,
            concurrency: read_option(server, "concurrency", read_count)?.unwrap_or(CONCURRENCY),
            max_retries: read_option(server, "max_retries", read_retries)?.unwrap_or(MAX_RETRIES),
            requests_per_minute: read_option(server, "requests_per_minute", read_rate)?,
            tokens_per_minute: read_option(server, "tokens_per_minute", read_rate)?,
            prices: Prices {
                tokens_in: price("price_per_million_input_tokens")?,
                tokens_out: price("price_per_million_output_tokens")?,
            },
            spending_cap: read_option(server, "spending_cap", read_amount)?,
            parameters: read_option(server, "parameters", parse_parameters)?.unwrap_or_default(),
        })
    }
}

/// Returns the endpoint for a task's requests.
pub fn endpoint(task: &Task, access: &Access) -> Result<Endpoint, DeliveryError> {
    match (task, access.user.get("api_key")) {
        // Like a webhook.
        (Task::Post { .. }, _) | (_, None) => Endpoint::new(access),
        (_, Some(_)) if access.server.get("api_key_header").is_some() => Endpoint::new(access),
        (_, Some(key)) => {
            let user = Options(BTreeMap::from([("bearer_token".to_owned(), key.to_owned())]));
            Endpoint::new(&Access { user, ..access.clone() })
        }
    }
}

fn read_option<T>(
    options: &Options,
    name: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, DeliveryError> {
    options.get(name).map(read).transpose().map_err(|why| wrong(name, &why))
}

fn check_base_url(text: &str) -> Result<(), String> {
    match endpoint::url(text)?.query() {
        Some(_) => Err("must have no query (?…): paths are added to it".to_owned()),
        None => Ok(()),
    }
}

fn read_count(text: &str) -> Result<usize, String> {
    check_positive(text)?;
    text.parse().map_err(|_| "must be a whole number greater than 0".to_owned())
}

fn read_rate(text: &str) -> Result<f64, String> {
    read_count(text).map(|n| n as f64)
}

fn read_retries(text: &str) -> Result<u32, String> {
    check_at_most_100(text)?;
    text.parse().map_err(|_| "must be a whole number from 0 to 100".to_owned())
}

fn read_amount(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && n >= 0.0 => Ok(n),
        _ => Err("must be a number, and not below 0".to_owned()),
    }
}

/// Fields that determine the form of a request. All other fields concern only the model.
const RESERVED: [&str; 6] = ["model", "messages", "response_format", "stream", "n", "tools"];

fn parse_parameters(text: &str) -> Result<Map<String, Value>, String> {
    let parsed: Map<String, Value> = serde_json::from_str(text)
        .map_err(|_| "must be a JSON object, such as {\"max_tokens\": 500}".to_owned())?;
    match RESERVED.iter().find(|name| parsed.contains_key(**name)) {
        Some(name) => Err(format!("must not have {name}")),
        None => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        Options(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    fn embed() -> Task {
        Task::Embed { model: "m".to_owned(), dimensions: None }
    }

    #[test]
    fn options_are_checked() {
        let check = |name: &str, value: &str| {
            let spec = OPTIONS.iter().find(|s| s.name == name).expect("an option");
            (spec.check)(value)
        };
        for (name, value) in [
            ("url", "https://h/v1"),
            ("max_retries", "0"),
            ("spending_cap", "0"),
            ("price_per_million_input_tokens", "0.02"),
            ("parameters", "{\"max_tokens\": 1, \"temperature\": null}"),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name} {value}");
        }
        for (name, value) in [
            ("url", "ftp://h"),
            ("url", "https://h/v1?key=1"),
            ("url", "https://u:p@h"),
            ("batch_size", "0"),
            ("concurrency", "-1"),
            ("max_retries", "101"),
            ("requests_per_minute", "1.5"),
            ("spending_cap", "-1"),
            ("spending_cap", "NaN"),
            ("price_per_million_output_tokens", "inf"),
            ("parameters", "[]"),
            ("parameters", "{\"model\": \"x\"}"),
            ("request_timeout", "0"),
            ("headers", "{\"Authorization\": \"x\"}"),
            ("api_key", "a\nb"),
        ] {
            assert!(check(name, value).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn a_key_is_sent_as_a_bearer_token_or_in_its_header() {
        let sent = |server: &[(&str, &str)]| {
            let server = options(&[&[("url", "http://h")], server].concat());
            let access = Access { server, user: options(&[("api_key", "k")]), trusted: false };
            let headers = endpoint(&embed(), &access).map(|e| e.headers).map_err(|t| t.message);
            headers.expect("an endpoint")
        };
        assert_eq!(sent(&[])["authorization"], "Bearer k");
        let named = sent(&[("api_key_header", "api-key")]);
        assert_eq!((named["api-key"].to_str().ok(), named.get("authorization")), (Some("k"), None));
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let config = Config::new(&embed(), &options(&[])).expect("defaults");
        assert_eq!((config.batch_size, config.concurrency, config.max_retries), (64, 16, 5));
        let read_option = options(&[("batch_size", "3"), ("spending_cap", "1.5")]);
        let config = Config::new(&embed(), &read_option).expect("options");
        assert_eq!((config.batch_size, config.spending_cap), (3, Some(1.5)));
        let generate = Task::Generate { model: "m".to_owned(), schema: None };
        assert_eq!(Config::new(&generate, &read_option).expect("options").batch_size, 1);
    }
}

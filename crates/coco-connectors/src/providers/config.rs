//! The options of a server that embeds and generates, and what is made of them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::spending::Prices;
use crate::net::endpoint::{self, Endpoint, wrong};
use crate::net::{headers, tls};
use coco_core::delivery::Trouble;
use coco_core::options::{Access, On, Options, Spec, hundred, positive};
use coco_core::provider::Task;

const BATCH_SIZE: usize = 64;
const CONCURRENCY: usize = 16;
const MAX_RETRIES: u32 = 5;

pub const OPTIONS: &[Spec] = &[
    Spec::new(
        "url",
        On::Server,
        "What paths such as /embeddings are added to, such as https://api.openai.com/v1.",
    )
    .required()
    .check(base),
    endpoint::CONNECT,
    endpoint::REQUEST,
    Spec::new("batch_size", On::Server, "How many texts a request embeds at most; 64 by default.")
        .check(positive),
    Spec::new("concurrency", On::Server, "How many requests are made at once; 16 by default.")
        .check(positive),
    Spec::new(
        "max_retries",
        On::Server,
        "How often a request is made again that was not answered, or not as it should be; 5 by \
         default.",
    )
    .check(hundred),
    Spec::new("requests_per_minute", On::Server, "How many requests a process makes in a minute.")
        .check(positive),
    Spec::new(
        "tokens_per_minute",
        On::Server,
        "For how many tokens a process asks in a minute, those of answers included.",
    )
    .check(positive),
    Spec::new(
        "price_per_million_input_tokens",
        On::Server,
        "What a million tokens of input cost, in any currency; 0 by default.",
    )
    .check(|text| amount(text).map(drop)),
    Spec::new(
        "price_per_million_output_tokens",
        On::Server,
        "What a million tokens of output cost; 0 by default.",
    )
    .check(|text| amount(text).map(drop)),
    Spec::new("spending_cap", On::Server, "What may be spent, in the currency of the prices.")
        .check(|text| amount(text).map(drop)),
    Spec::new(
        "parameters",
        On::Server,
        "Fields of each request that generates, as a JSON object such as {\"max_tokens\": 500}; \
         null leaves one out that coco gives.",
    )
    .check(|text| parameters(text).map(drop)),
    Spec::new(
        "headers",
        On::Server,
        "Headers of each request, as a JSON object of names and values. No secrets: every role can \
         read the options of a server.",
    )
    .check(|text| headers::given(text).map(drop)),
    Spec::new(
        "api_key_header",
        On::Server,
        "The header of api_key, as it is; without it that is sent as Authorization: Bearer.",
    )
    .check(|text| headers::name(text).map(drop)),
    Spec::new("sslrootcert", On::Server, "Certificates, as PEM, to trust instead of the system's.")
        .check(|text| tls::given(text).map(drop)),
    Spec::new("api_key", On::UserMapping, "The key that the provider knows the user by.")
        .secret()
        .check(headers::secret),
];

/// How a server is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Inputs in a request, at least 1.
    pub batch_size: usize,
    /// Requests at once, at least 1.
    pub concurrency: usize,
    pub max_retries: u32,
    pub requests_per_minute: Option<f64>,
    pub tokens_per_minute: Option<f64>,
    pub prices: Prices,
    pub spending_cap: Option<f64>,
    pub parameters: Map<String, Value>,
}

impl Config {
    /// Each option has been checked by itself. Of a service's there are no prices.
    pub fn new(task: &Task, server: &Options) -> Result<Config, Trouble> {
        let batch_size = match task {
            // A webhook's batches are of changes.
            Task::Post { .. } | Task::Generate { .. } => 1,
            Task::Embed { .. } => given(server, "batch_size", count)?.unwrap_or(BATCH_SIZE),
        };
        let price = |name| given(server, name, amount).map(Option::unwrap_or_default);
        Ok(Config {
            batch_size,
            concurrency: given(server, "concurrency", count)?.unwrap_or(CONCURRENCY),
            max_retries: given(server, "max_retries", retries)?.unwrap_or(MAX_RETRIES),
            requests_per_minute: given(server, "requests_per_minute", rate)?,
            tokens_per_minute: given(server, "tokens_per_minute", rate)?,
            prices: Prices {
                tokens_in: price("price_per_million_input_tokens")?,
                tokens_out: price("price_per_million_output_tokens")?,
            },
            spending_cap: given(server, "spending_cap", amount)?,
            parameters: given(server, "parameters", parameters)?.unwrap_or_default(),
        })
    }
}

/// Whom requests for a task go to, and with what.
pub fn endpoint(task: &Task, access: &Access) -> Result<Endpoint, Trouble> {
    match (task, access.user.get("api_key")) {
        // As a webhook has it.
        (Task::Post { .. }, _) | (_, None) => Endpoint::new(access),
        (_, Some(_)) if access.server.get("api_key_header").is_some() => Endpoint::new(access),
        (_, Some(key)) => {
            let user = Options(BTreeMap::from([("bearer_token".to_owned(), key.to_owned())]));
            Endpoint::new(&Access { user, ..access.clone() })
        }
    }
}

fn given<T>(
    options: &Options,
    name: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Trouble> {
    options.get(name).map(read).transpose().map_err(|why| wrong(name, &why))
}

fn base(text: &str) -> Result<(), String> {
    match endpoint::url(text)?.query() {
        Some(_) => Err("must have no query (?…): paths are added to it".to_owned()),
        None => Ok(()),
    }
}

fn count(text: &str) -> Result<usize, String> {
    positive(text)?;
    text.parse().map_err(|_| "must be a whole number above 0".to_owned())
}

fn rate(text: &str) -> Result<f64, String> {
    count(text).map(|n| n as f64)
}

fn retries(text: &str) -> Result<u32, String> {
    hundred(text)?;
    text.parse().map_err(|_| "must be a whole number from 0 to 100".to_owned())
}

fn amount(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && n >= 0.0 => Ok(n),
        _ => Err("must be a number, and not below 0".to_owned()),
    }
}

/// Fields that make a request what it is: the others mean something to the model alone.
const TAKEN: [&str; 6] = ["model", "messages", "response_format", "stream", "n", "tools"];

fn parameters(text: &str) -> Result<Map<String, Value>, String> {
    let parsed: Map<String, Value> = serde_json::from_str(text)
        .map_err(|_| "must be a JSON object, such as {\"max_tokens\": 500}".to_owned())?;
    match TAKEN.iter().find(|name| parsed.contains_key(**name)) {
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
        let given = options(&[("batch_size", "3"), ("spending_cap", "1.5")]);
        let config = Config::new(&embed(), &given).expect("options");
        assert_eq!((config.batch_size, config.spending_cap), (3, Some(1.5)));
        let generate = Task::Generate { model: "m".to_owned(), schema: None };
        assert_eq!(Config::new(&generate, &given).expect("options").batch_size, 1);
    }
}

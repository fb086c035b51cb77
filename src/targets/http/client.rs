//! Sends changes to a webhook, and finds the rows that it refuses.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response, redirect};

use super::answer::{self, Answer};
use super::config::Config;
use super::encode;
use super::error::no_answer;
use super::tls;
use crate::engine::delivery::{Change, Refused, Shape, Trouble};
use crate::targets::options::Access;
use crate::targets::{Prepared, Target};

const USER_AGENT: &str = concat!("coco/", env!("CARGO_PKG_VERSION"));
/// Many servers close a connection that was idle for 5 seconds or more. One that is given up
/// sooner is not closed by the other side just when a request is on its way.
const IDLE: Duration = Duration::from_secs(3);
/// How many bytes of an answer are read. What is longer is treated as if it said nothing.
const LONGEST_ANSWER: usize = 1024 * 1024;

struct Webhook {
    config: Config,
    client: Client,
}

pub fn open(access: Access) -> Result<Box<dyn Target>, Trouble> {
    let config = Config::new(&access)?;
    let client = Client::builder()
        .tls_backend_preconfigured(tls::client(&config)?)
        .user_agent(USER_AGENT)
        .default_headers(config.headers.clone())
        .connect_timeout(config.connect_timeout)
        .timeout(config.request_timeout)
        // The request goes where the server's owner has said, and nowhere else.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(IDLE)
        .build()
        .map_err(|e| {
            let detail = config.peer.quote(&e.without_url().to_string());
            Trouble::server("HV000", "the HTTP client cannot be set up").detail(detail)
        })?;
    Ok(Box::new(Webhook { config, client }))
}

#[async_trait]
impl Target for Webhook {
    /// A webhook has nothing to make, and no way to ask what is there.
    async fn prepare(&mut self, _shape: &Shape) -> Result<Prepared, Trouble> {
        Ok(Prepared::Found)
    }

    /// A part that is refused as a whole is halved until the rows that are to blame stand alone.
    async fn apply(&mut self, shape: &Shape, changes: &[Change]) -> Result<Vec<Refused>, Trouble> {
        let mut refused = Vec::new();
        // Parts with the place of their first change; the last is sent next.
        let size = self.config.batch_size;
        let parts = changes.chunks(size).enumerate().map(|(n, part)| (n * size, part));
        let mut waiting: Vec<(usize, &[Change])> = parts.rev().collect();
        while let Some((first, part)) = waiting.pop() {
            match self.send(shape, part).await? {
                Answer::Arrived(but) => {
                    refused.extend(but.into_iter().map(|(place, why)| why.of(first + place)));
                }
                Answer::Refused(why) if part.len() == 1 => refused.push(why.of(first)),
                Answer::Refused(_) => {
                    let middle = part.len() / 2;
                    let (left, right) = part.split_at(middle);
                    waiting.push((first + middle, right));
                    waiting.push((first, left));
                }
            }
        }
        Ok(refused)
    }

    async fn remove(&mut self, _shape: &Shape) -> Result<(), Trouble> {
        Ok(())
    }
}

impl Webhook {
    /// Posts one request, and reads its answer.
    async fn send(&self, shape: &Shape, changes: &[Change]) -> Result<Answer, Trouble> {
        let encode::Request { idempotency_key, body } = encode::request(shape, changes)?;
        let mut request = self
            .client
            .post(self.config.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", idempotency_key);
        if let Some(signer) = &self.config.signer {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            request =
                request.header("x-coco-signature", signer.sign(now.as_secs(), body.as_bytes()));
        }
        let mut response =
            request.body(body).send().await.map_err(|e| no_answer(&e, &self.config))?;
        let status = response.status();
        let body = match read(&mut response).await {
            Ok(body) => body,
            // Rows that it refuses would be named in what is missing.
            Err(e) if status.is_success() => return Err(no_answer(&e, &self.config)),
            Err(_) => Vec::new(),
        };
        answer::read(status, response.headers(), &body, changes.len(), &self.config.peer)
    }
}

/// The body of an answer, or nothing if it is too long.
async fn read(response: &mut Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return Ok(Vec::new());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

//! Sends changes to a webhook, and finds the rejected rows.

use async_trait::async_trait;
use reqwest::Client;

use super::answer::{self, Answer};
use super::config::Config;
use super::{encode, verify};
use crate::net::error::no_answer;
use crate::net::{body, client};
use crate::targets::{Prepared, Target, changed_meanwhile};
use coco_core::change::{Change, DeliveryError, RejectedChange, TargetSchema};
use coco_core::key_range::{HeldRow, KeyRange, PartDigests};
use coco_core::options::Access;

/// Maximum bytes of a response that are read. A longer response counts as empty.
const LONGEST_ANSWER: usize = 1024 * 1024;

struct Webhook {
    config: Config,
    client: Client,
}

pub fn open(access: Access) -> Result<Box<dyn Target>, DeliveryError> {
    let config = Config::new(&access)?;
    let client = client::new(&config.endpoint, 1)?;
    Ok(Box::new(Webhook { config, client }))
}

#[async_trait]
impl Target for Webhook {
    /// A webhook needs no objects, and offers no way to check for any.
    async fn exists(&mut self, _shape: &TargetSchema) -> Result<bool, DeliveryError> {
        Ok(true)
    }

    async fn prepare(&mut self, _shape: &TargetSchema) -> Result<Prepared, DeliveryError> {
        Ok(Prepared::Found)
    }

    /// Bisects a request that is rejected as a whole, until the failing rows are alone.
    async fn apply(
        &mut self,
        schema: &TargetSchema,
        changes: &[Change],
    ) -> Result<Vec<RejectedChange>, DeliveryError> {
        let mut rejected = Vec::new();
        // Parts of the batch with the index of their first change. The last one is sent next.
        let size = self.config.batch_size;
        let parts = changes.chunks(size).enumerate().map(|(n, part)| (n * size, part));
        let mut waiting: Vec<(usize, &[Change])> = parts.rev().collect();
        while let Some((first, part)) = waiting.pop() {
            match self.send(schema, part).await? {
                Answer::Delivered(but) => {
                    rejected.extend(but.into_iter().map(|(place, why)| why.of(first + place)));
                }
                Answer::Rejected(why) if part.len() == 1 => rejected.push(why.of(first)),
                Answer::Rejected(_) => {
                    let middle = part.len() / 2;
                    let (left, right) = part.split_at(middle);
                    waiting.push((first + middle, right));
                    waiting.push((first, left));
                }
            }
        }
        Ok(rejected)
    }

    async fn part_digests(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        digits: u32,
    ) -> Result<PartDigests, DeliveryError> {
        let body = self.ask(verify::parts_query(schema, ranges, digits)?).await?;
        verify::read_parts(&body, ranges, digits)
    }

    async fn held_rows(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        most: usize,
    ) -> Result<Vec<HeldRow>, DeliveryError> {
        let limit = most.saturating_add(1);
        let body = self.ask(verify::rows_query(schema, ranges, limit)?).await?;
        let rows = verify::read_rows(&body, ranges)?;
        if rows.len() > most { Err(changed_meanwhile()) } else { Ok(rows) }
    }

    async fn remove(&mut self, _shape: &TargetSchema) -> Result<(), DeliveryError> {
        Ok(())
    }
}

impl Webhook {
    /// Sends a request that changes nothing, and returns the body of the answer.
    async fn ask(&self, body: String) -> Result<body::Body, DeliveryError> {
        let endpoint = &self.config.endpoint;
        let request = client::post(&self.client, endpoint, endpoint.url.clone(), body);
        let mut response = request.send().await.map_err(|e| no_answer(&e, endpoint))?;
        let status = response.status();
        let body = body::read(&mut response, verify::LONGEST_ANSWER).await;
        let body = body.map_err(|e| no_answer(&e, endpoint))?.unwrap_or_default();
        match answer::read(status, response.headers(), &body, 0, &endpoint.peer)? {
            Answer::Delivered(_) => Ok(body),
            Answer::Rejected(why) => Err(DeliveryError::target(why.sqlstate, why.message)),
        }
    }

    /// Sends one request, and classifies its response.
    async fn send(
        &self,
        schema: &TargetSchema,
        changes: &[Change],
    ) -> Result<Answer, DeliveryError> {
        let encode::Request { idempotency_key, body } =
            encode::request(schema, changes, self.config.digests)?;
        let endpoint = &self.config.endpoint;
        let request = client::post(&self.client, endpoint, endpoint.url.clone(), body)
            .header("idempotency-key", idempotency_key);
        let mut response = request.send().await.map_err(|e| no_answer(&e, endpoint))?;
        let status = response.status();
        let body = match body::read(&mut response, LONGEST_ANSWER).await {
            Ok(body) => body.unwrap_or_default(),
            // The missing part could name rejected rows.
            Err(e) if status.is_success() => return Err(no_answer(&e, endpoint)),
            Err(_) => body::Body::default(),
        };
        answer::read(status, response.headers(), &body, changes.len(), &endpoint.peer)
    }
}

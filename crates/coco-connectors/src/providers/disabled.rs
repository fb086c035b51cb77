//! The replacement of providers in a build without them.

use coco_core::change::DeliveryError;
use coco_core::options::Options;
use coco_core::provider::{Job, JobOutcome, RequestTerms, Task, Usage};

/// Returns an error for each job.
pub async fn ask(jobs: Vec<Job>) -> Vec<JobOutcome> {
    let outcome = |job: Job| JobOutcome {
        answers: vec![None; job.inputs.len()],
        usage: Usage::default(),
        error: Some(DeliveryError::server("0A000", "this build of coco has no providers")),
    };
    jobs.into_iter().map(outcome).collect()
}

/// Returns the terms of a server without prices.
pub fn request_terms(_: &Task, _: &Options) -> Result<RequestTerms, DeliveryError> {
    Ok(RequestTerms { inputs_per_request: 1, ..RequestTerms::default() })
}

pub fn longest_matching_prefix<'a>(
    _: impl Iterator<Item = &'a str>,
    _: &str,
) -> Result<Option<usize>, String> {
    Ok(None)
}

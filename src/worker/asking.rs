//! Asking providers, and waiting for their answers: in any process of Postgres'.

use crate::catalog::error::Error;
use crate::engine::provider::{Job, Outcome};

/// Does jobs beside each other, and waits for all of them: an outcome for each. A statement that is
/// cancelled meanwhile drops its requests.
pub fn ask(jobs: Vec<Job>) -> Result<Vec<Outcome>, Error> {
    let _ = jobs;
    Err(Error::internal("not yet"))
}

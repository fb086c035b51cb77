//! Calls of providers, and waiting for their answers, in any Postgres process.

use pgrx::{PgSqlErrorCode, pg_sys};
use std::time::Duration;

use crate::outbox::provider_access;
use crate::pg::error::Error;
use crate::pg::subtransaction;
use crate::workers::async_runtime::{self, TaskState};
use crate::workers::process::pause;
use crate::workers::wait_event::WaitEvent;
use coco_connectors::providers;
use coco_core::change::DeliveryError;
use coco_core::options::Access;
use coco_core::provider::{Job, JobOutcome, RequestTerms, Task};

/// Returns the name of the server for a task, and the options with which a role accesses it. Checks
/// that the role may use the server. For a POST, the server is the one whose URL contains the
/// task's URL.
pub fn reach(
    task: &Task,
    server: Option<&str>,
    role: pg_sys::Oid,
) -> Result<(String, Access), Error> {
    let (name, wrapper) = match (task, server) {
        (Task::Post { url }, _) => (server_of(url, role)?, providers::SERVICES),
        (_, Some(server)) => (server.to_owned(), providers::MODELS),
        (_, None) => return Err(Error::internal("a task has no server")),
    };
    let access = provider_access::access(&name, role, wrapper)?;
    Ok((name, access))
}

/// Converts a delivery error to an error.
pub fn error(trouble: DeliveryError) -> Error {
    let mut error = Error::new(subtransaction::sqlstate_code(&trouble.sqlstate), trouble.message);
    error.detail = trouble.detail;
    error.hint = trouble.hint;
    error
}

/// Returns what the options of a server say about the requests of a task.
pub fn terms(task: &Task, access: &Access) -> Result<RequestTerms, Error> {
    providers::request_terms(task, &access.server).map_err(error)
}

/// Runs jobs concurrently and waits for all of them. Returns an outcome for each. Canceling the
/// statement drops its requests.
pub fn ask(jobs: Vec<Job>) -> Result<Vec<JobOutcome>, Error> {
    // Dropped when this call ends, for any reason, which stops the task.
    let (_asking, mut left) = tokio::sync::oneshot::channel::<()>();
    let work = async move {
        tokio::select! {
            outcomes = providers::ask(jobs) => outcomes,
            _ = &mut left => vec![],
        }
    };
    let task = async_runtime::spawn(work)
        .map_err(|e| Error::internal(format!("could not start a thread: {e}")))?;
    loop {
        match task.state() {
            TaskState::Running => {
                pause(Duration::from_secs(1), WaitEvent::Provider);
            }
            TaskState::Done(outcomes) => return Ok(outcomes),
            TaskState::Lost => return Err(Error::internal("the task of the provider panicked")),
        }
    }
}

/// Returns the server for a URL: of the servers that the role may use, the one whose URL contains
/// it.
fn server_of(url: &str, role: pg_sys::Oid) -> Result<String, Error> {
    let bases = provider_access::bases(providers::SERVICES, role)?;
    let found = providers::longest_matching_prefix(bases.iter().map(|base| base.url.as_str()), url)
        .map_err(|why| Error::invalid(format!("the URL {why}")))?;
    let base = found.and_then(|place| bases.into_iter().nth(place)).ok_or_else(|| {
        Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied for URL")
            .detail("The URL is not below that of a coco_http server that the role may use.")
            .hint(
                "Ask a superuser to run CREATE SERVER … FOREIGN DATA WRAPPER coco_http OPTIONS \
             (url '…') and GRANT USAGE ON FOREIGN SERVER … TO ….",
            )
    })?;
    Ok(base.server)
}

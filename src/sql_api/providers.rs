//! Functions that call providers over the network: `coco.embed`, `coco.generate` and
//! `coco.http_post`.
//!
//! Outside a flow they send a request at once and wait for the answer.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{AnyElement, FromDatum};
use std::ffi::CString;

use crate::memo::spending;
use crate::pg::error::{Error, Result};
use crate::pg::json::{self, Json};
use crate::pg::{acting_role, spi, subtransaction};
use crate::sql_api::arguments::required_argument;
use crate::workers::provider_calls;
use coco_core::provider::{Answer, Job, RejectedInput, Task};

#[pg_extern(sql = false)]
fn embed(
    input: Option<String>,
    server: Option<&str>,
    model: Option<String>,
    dimensions: Option<i32>,
) -> std::result::Result<Option<Vec<f32>>, ErrorReport> {
    let Some(input) = input else { return Ok(None) };
    let server = required_argument(server, "server")?;
    let model = required_argument(model, "model")?;
    let dimensions = dimensions.map(|n| match u32::try_from(n) {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(Error::invalid(format!("argument \"dimensions\" ({n}) must be greater than 0"))),
    });
    let task = Task::Embed { model, dimensions: dimensions.transpose()? };
    match ask(task, Some(server), input)? {
        Answer::Embedding(vector) => Ok(Some(vector)),
        Answer::Text(_) => Err(unasked().into()),
    }
}

#[pg_extern(sql = false)]
fn generate(
    prompt: Option<String>,
    server: Option<&str>,
    model: Option<String>,
    json_schema: Option<Json>,
) -> std::result::Result<Option<String>, ErrorReport> {
    let Some(prompt) = prompt else { return Ok(None) };
    let server = required_argument(server, "server")?;
    let model = required_argument(model, "model")?;
    let task = Task::Generate {
        model,
        schema: json_schema.map(|json| json.value("argument \"json_schema\"")).transpose()?,
    };
    match ask(task, Some(server), prompt)? {
        Answer::Text(text) => Ok(Some(text)),
        Answer::Embedding(_) => Err(unasked().into()),
    }
}

#[pg_extern(sql = false)]
fn http_post(url: &str, body: AnyElement) -> std::result::Result<Option<AnyElement>, ErrorReport> {
    // SAFETY: the SQL declaration gives the argument this type.
    let body = unsafe { json::jsonb_text(body.datum()) };
    match ask(Task::Post { url: url.to_owned() }, None, body)? {
        Answer::Text(text) => {
            let text = CString::new(text).map_err(|_| unasked())?;
            let json = json::jsonb(&text);
            // SAFETY: the datum is a jsonb.
            Ok(unsafe { AnyElement::from_polymorphic_datum(json, false, pg_sys::JSONBOID) })
        }
        Answer::Embedding(_) => Err(unasked().into()),
    }
}

/// Returns the answer to one input, using the server with the rights of the current role.
fn ask(task: Task, server: Option<&str>, input: String) -> Result<Answer> {
    let (server, access) = provider_calls::reach(&task, server, acting_role::current())?;
    let (name, budget) = (server.clone(), spending::left(&server, &access)?);
    let job = Job { server, task, access, inputs: vec![input], budget };
    let outcome = provider_calls::ask(vec![job])?.pop();
    let mut outcome = outcome.ok_or_else(|| Error::internal("a job has no outcome"))?;
    if !spi::is_read_only() {
        spending::note(&name, None, &outcome.usage)?;
    }
    match (outcome.answers.pop().flatten(), outcome.error) {
        (Some(Ok(answer)), _) => Ok(answer),
        (Some(Err(RejectedInput { sqlstate, message })), _) => {
            Err(Error::new(subtransaction::sqlstate_code(&sqlstate), message))
        }
        (None, Some(trouble)) => Err(provider_calls::error(trouble)),
        (None, None) => Err(Error::internal("an input has no answer")),
    }
}

/// The error for an answer of another kind than requested, which providers rule out.
fn unasked() -> Error {
    Error::internal("the answer is not of the requested kind")
}

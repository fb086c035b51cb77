//! Requests missing results from providers: one job for each model, and all jobs at the same time.

use pgrx::{FromDatum, pg_sys};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::CString;
use std::rc::Rc;
use std::sync::OnceLock;

use crate::catalog::memo_function::{MemoFunction, MemoFunctionKind};
use crate::memo::session::{CallArguments, MemoSession, MissedRequest};
use crate::memo::settle::{self, MissedCalls, settle_results};
use crate::memo::spending;
use crate::pg::error::{Error, Result};
use crate::pg::json::{self, Json};
use crate::pg::subtransaction;
use crate::pg::value_codec::Codec;
use coco_core::change::DeliveryError;
use coco_core::memo_batch::{ComputedResult, EntryIndex, FunctionId, MemoError, Stats};
use coco_core::options::Access;
use coco_core::provider::{Answer, Job, JobOutcome, RequestTerms, Task};

/// Returns the server for a task and the role, and the options with which the role calls it.
type Reach = fn(&Task, Option<&str>, pg_sys::Oid) -> Result<(String, Access)>;

/// Returns what the options of a server say about the requests of a task.
type Terms = fn(&Task, &Access) -> Result<RequestTerms>;

/// The functions that call providers. The layer with threads registers them.
#[derive(Clone, Copy)]
pub struct ProviderRequest {
    pub reach: Reach,
    pub terms: Terms,
    /// Runs jobs concurrently, and waits for all of them.
    pub ask: fn(Vec<Job>) -> Result<Vec<JobOutcome>>,
}

static ASKING: OnceLock<ProviderRequest> = OnceLock::new();

/// Registers the functions that call providers; once, when the library is loaded.
pub fn register_provider_client(asking: ProviderRequest) {
    ASKING.get_or_init(|| asking);
}

/// Returns the server of a request, and what its options say about the request. Checks that the role
/// may use the server.
pub fn terms_of(request: &MissedRequest, role: pg_sys::Oid) -> Result<(String, RequestTerms)> {
    let asking = client()?;
    let (server, access) = (asking.reach)(&request.task, request.server.as_deref(), role)?;
    let terms = (asking.terms)(&request.task, &access)?;
    Ok((server, terms))
}

fn client() -> Result<&'static ProviderRequest> {
    ASKING.get().ok_or_else(|| Error::internal("no client of providers is registered"))
}

/// The inputs of one job, and the entry to which each input belongs.
struct Group {
    job: Job,
    function: FunctionId,
    places: Vec<EntryIndex>,
    codec: Codec,
}

/// Requests missing results of these functions from their providers. If one job fails, the answers
/// that were received before are settled nevertheless.
pub fn ask_provider(
    recalling: &MemoSession,
    all: Vec<(FunctionId, Rc<MemoFunction>, MissedCalls)>,
) -> Result<()> {
    let asking = client()?;
    let mut groups: BTreeMap<(FunctionId, String), Group> = BTreeMap::new();
    for (id, function, asked) in &all {
        for (place, arguments) in asked {
            let (MissedRequest { server, task }, input) =
                match provider_request(function.kind, arguments) {
                    Ok(request) => request,
                    Err(fault) => {
                        settle_results(recalling, *place, Err(fault));
                        continue;
                    }
                };
            let what = format!("{server:?} {task:?}");
            let group = match groups.entry((*id, what)) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(room) => {
                    let owner = recalling.owner;
                    let (server, access) = (asking.reach)(&task, server.as_deref(), owner)?;
                    let budget = spending::left(&server, &access)?;
                    let job = Job { server, task, access, inputs: vec![], budget };
                    // SAFETY: in a transaction; the groups do not outlive this call.
                    let codec =
                        unsafe { Codec::of(arguments.result, pg_sys::CurrentMemoryContext)? };
                    room.insert(Group { job, function: *id, places: vec![], codec })
                }
            };
            group.job.inputs.push(input);
            group.places.push(*place);
        }
    }
    let mut groups: Vec<Group> = groups.into_values().collect();
    let outcomes = (asking.ask)(groups.iter().map(|g| g.job.clone()).collect())?;
    let mut trouble = None;
    for (group, outcome) in groups.iter_mut().zip(outcomes) {
        spending::note(&group.job.server, Some(recalling.flow), &outcome.usage)?;
        settle::spent(recalling, &group.job.server, outcome.usage);
        recalling.count(
            group.function,
            Stats {
                requests: outcome.usage.requests as i64,
                tokens_in: outcome.usage.tokens_in as i64,
                tokens_out: outcome.usage.tokens_out as i64,
                cost: outcome.usage.cost,
                micros: outcome.usage.elapsed.as_micros() as i64,
                ..Stats::default()
            },
        );
        let is_json = matches!(group.job.task, Task::Post { .. });
        for (place, answer) in group.places.iter().zip(outcome.answers) {
            let result = match answer {
                None => continue,
                Some(Ok(answer)) => kept(&mut group.codec, answer, is_json),
                Some(Err(refusal)) => Err(fault(&refusal.sqlstate, refusal.message)),
            };
            settle_results(recalling, *place, result);
        }
        trouble = trouble.or(outcome.error);
    }
    match trouble {
        None => Ok(()),
        Some(trouble) => Err(error(trouble)),
    }
}

/// Returns the request and the input of a call. Returns the error of an invalid argument, as the
/// function raises it outside a flow.
pub fn provider_request(
    kind: MemoFunctionKind,
    arguments: &CallArguments,
) -> std::result::Result<(MissedRequest, String), MemoError> {
    let of = |server, task| MissedRequest { server, task };
    let at = |n: usize| arguments.values.get(n).copied().flatten();
    // SAFETY: the arguments of coco's own functions have the types that coco declares.
    let text = |n: usize| unsafe { String::from_datum(at(n)?, false) };
    let given = |n: usize, name: &str| {
        text(n).ok_or_else(|| fault("22004", format!("argument \"{name}\" must not be NULL")))
    };
    // SAFETY: as above.
    let json = |n: usize| unsafe { Json::from_datum(at(n)?, false) };
    match kind {
        MemoFunctionKind::Embed => {
            let dimensions = match at(3).map(|d| d.value() as i32) {
                None => None,
                Some(n) if n > 0 => Some(n as u32),
                Some(n) => {
                    let what = format!("argument \"dimensions\" ({n}) must be greater than 0");
                    return Err(fault("22023", what));
                }
            };
            let (server, model) = (given(1, "server")?, given(2, "model")?);
            let task = Task::Embed { model, dimensions };
            Ok((of(Some(server), task), text(0).unwrap_or_default()))
        }
        MemoFunctionKind::Generate => {
            let (server, model) = (given(1, "server")?, given(2, "model")?);
            let schema = json(3).map(|schema| schema.value("argument \"json_schema\""));
            let schema = schema.transpose().map_err(|e| fault("22023", e.message))?;
            let task = Task::Generate { model, schema };
            Ok((of(Some(server), task), text(0).unwrap_or_default()))
        }
        _ => {
            let url = given(0, "url")?;
            // SAFETY: as above.
            let body = at(1).map(|body| unsafe { json::jsonb_text(body) });
            Ok((of(None, Task::Post { url }), body.unwrap_or_default()))
        }
    }
}

fn fault(sqlstate: &str, message: String) -> MemoError {
    MemoError { sqlstate: sqlstate.to_owned(), message, detail: None, hint: None }
}

fn kept(
    codec: &mut Codec,
    answer: Answer,
    is_json: bool,
) -> std::result::Result<ComputedResult, MemoError> {
    match answer {
        Answer::Embedding(numbers) => Ok(settle::encoded_result(codec, numbers)),
        Answer::Text(text) if is_json => match CString::new(text) {
            // SAFETY: the value has the function's result type.
            Ok(text) => Ok(unsafe { codec.keep(Some(json::jsonb(&text))) }),
            Err(_) => Err(fault("22P05", "response contains a NUL byte".to_owned())),
        },
        Answer::Text(text) => Ok(settle::encoded_result(codec, text)),
    }
}

fn error(trouble: DeliveryError) -> Error {
    Error {
        code: subtransaction::sqlstate_code(&trouble.sqlstate),
        message: trouble.message,
        detail: trouble.detail,
        hint: Some(trouble.hint.unwrap_or_else(|| {
            "Run coco.update again, or wait if the flow is live. coco keeps the responses that it received, and continues from there.".to_owned()
        })),
    }
}

//! What is recorded of an item that failed, and how.

use crate::catalog::model::{Source, Target, numbered};
use crate::pg::acting_role::ActingAs;
use crate::pg::error::Result;
use crate::pg::json::Json;
use crate::pg::spi::arg;
use crate::pg::subtransaction::{Raised, is_conflict};
use crate::pg::tuplestore::statements::Statements;
use crate::query::batch::Batch;
use coco_core::version::LogicId;

/// Why an item failed: an error that was raised, or a target key that it may not have.
#[derive(Clone, Debug)]
pub struct Failure {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// The target and the key, as a JSON list of texts, that the item waits for.
    pub claims: Option<(i32, String)>,
}

/// An item of a batch, by its number, that is refused a target key.
#[derive(Clone, Debug)]
pub struct Refused {
    pub item: usize,
    pub failure: Failure,
}

/// The SQLSTATE of a row whose key is NULL (null_value_not_allowed).
pub const NULL_KEY: &str = "22004";

/// What is to be done about a row whose key is NULL.
pub const NULL_KEY_HINT: &str =
    "Give such rows a key, or delete them. A view that is the source can leave them out.";

impl From<Raised> for Failure {
    fn from(r: Raised) -> Failure {
        Failure {
            sqlstate: r.sqlstate,
            message: r.message,
            detail: r.detail,
            hint: r.hint,
            claims: None,
        }
    }
}

impl Failure {
    /// Another item has the key (unique_violation).
    pub fn claimed(target: &Target, key: String) -> Failure {
        Failure {
            sqlstate: "23505".to_owned(),
            message: format!("target key of {} is already another item's", target.shown()),
            detail: Some(format!("Key {key}")),
            hint: Some(
                "As soon as the other item lets go of the key, this one takes it over.".to_owned(),
            ),
            claims: Some((target.id, key)),
        }
    }

    /// The item produces the key more than once (cardinality_violation).
    pub fn twice(target: &Target, key: String) -> Failure {
        Failure {
            sqlstate: "21000".to_owned(),
            message: format!("target key of {} is produced twice", target.shown()),
            detail: Some(format!("Key {key}")),
            hint: Some("Choose a key that tells the rows of an item apart.".to_owned()),
            claims: None,
        }
    }

    /// The item has no key (null_value_not_allowed): it can be told neither from others nor from none.
    pub fn null_key(source: &Source) -> Failure {
        Failure {
            sqlstate: NULL_KEY.to_owned(),
            message: format!("source \"{}\" has a row whose key is NULL", source.name),
            detail: None,
            hint: Some(NULL_KEY_HINT.to_owned()),
            claims: None,
        }
    }

    /// Whether rows of others may be in the way of the item's.
    pub fn is_conflict(&self) -> bool {
        is_conflict(&self.sqlstate)
    }

    /// What a preview says of it.
    pub fn shown(&self) -> Json {
        let Failure { sqlstate, message, detail, .. } = self;
        Json::from(
            serde_json::json!({ "sqlstate": sqlstate, "message": message, "detail": detail }),
        )
    }

    /// What was raised, as JSON, for [`Failure::from_text`].
    pub fn to_text(&self) -> String {
        let Failure { sqlstate, message, detail, hint, .. } = self;
        serde_json::json!([sqlstate, message, detail, hint]).to_string()
    }

    pub fn from_text(text: &str) -> Failure {
        let parts: Vec<Option<String>> = serde_json::from_str(text).unwrap_or_default();
        let mut parts = parts.into_iter();
        let mut next = || parts.next().flatten();
        Failure {
            sqlstate: next().unwrap_or_else(|| "XX000".to_owned()),
            message: next().unwrap_or_default(),
            detail: next(),
            hint: next(),
            claims: None,
        }
    }

    /// Whether the item waits for a key that another has.
    pub fn waits(&self) -> bool {
        self.claims.is_some()
    }
}

/// An expression: whether what failed so (a jsonb) is to be tried again at a time. Nothing is put off by more than an
/// hour: a time further off comes from a clock that was ahead.
pub fn is_due(failure: &str, now: &str) -> String {
    let at = format!("({failure} operator(pg_catalog.->>) 'next_retry')::pg_catalog.timestamptz");
    format!(
        "({at} operator(pg_catalog.<=) {now}
          or {at} operator(pg_catalog.>) ({now} operator(pg_catalog.+) pg_catalog.make_interval(hours => 1)))"
    )
}

/// Records that the one item of `batch` failed, and when it is tried again. What it has at the
/// targets stays.
pub fn record(
    source: &Source,
    batch: &Batch,
    failure: &Failure,
    logic: LogicId,
    attempts: i32,
    delay: std::time::Duration,
) -> Result<()> {
    let _as = ActingAs::extension_owner()?;
    let statements = Statements::connect()?;
    statements.name("coco_batch", batch.rows())?;
    let columns = numbered("k", source.key.len()).join(", ");
    let keys = numbered("b.k", source.key.len()).join(", ");
    let (target, claims) = failure.claims.clone().unzip();
    statements.execute(
        &format!(
            "insert into {} as t ({columns}, failure)
             select {keys}, pg_catalog.jsonb_build_object(
                      'sqlstate', $1::text, 'message', $2::text, 'detail', $3::text, 'hint', $4::text,
                      'attempts', $5::int, 'since', clock.now, 'failed_at', clock.now,
                      'next_retry', clock.now
                         operator(pg_catalog.+) pg_catalog.make_interval(secs => $6::float8),
                      'content_fingerprint', b.fingerprint, 'logic_id', $7::int,
                      'target', $8::int, 'claims', $9::text)
               from coco_batch as b
              cross join (select pg_catalog.clock_timestamp() as now) as clock
             on conflict ({columns}) do update
                set failure = excluded.failure operator(pg_catalog.||)
                    pg_catalog.jsonb_build_object('since', coalesce(t.failure operator(pg_catalog.->) 'since',
                                                                    excluded.failure operator(pg_catalog.->) 'since'))",
            source.tracking
        ),
        &[
            arg(failure.sqlstate.as_str()),
            arg(failure.message.as_str()),
            arg(failure.detail.clone()),
            arg(failure.hint.clone()),
            arg(attempts),
            arg(delay.as_secs_f64()),
            arg(logic.0),
            arg(target),
            arg(claims),
        ],
    )?;
    Ok(())
}

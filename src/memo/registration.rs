//! Records which functions are memoized: `coco.memoize` and `coco.unmemoize`.

use pgrx::datum::Interval;
use pgrx::{PgSqlErrorCode, pg_sys};

use crate::pg::acting_role::{self, RoleGuard};
use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::spi::{self, arg};

/// A function over arrays that coco calls instead of a function over single values.
pub struct BatchFunction {
    pub function: pg_sys::Oid,
    /// The largest number of inputs in one call.
    pub size: i32,
}

struct Shape {
    name: String,
    owner: pg_sys::Oid,
    kind: String,
    set: bool,
    arguments: Vec<pg_sys::Oid>,
    result: pg_sys::Oid,
    provided: bool,
}

fn shape(function: pg_sys::Oid) -> Result<Shape> {
    let _as = RoleGuard::qualifying_names()?;
    spi::select(
        "select p.oid::regprocedure::text, p.proowner, p.prokind::text, p.proretset,
                p.proargtypes::oid[], p.prorettype,
                p.pronamespace = 'coco'::regnamespace and p.proname in ('embed', 'generate', 'http_post')
           from pg_catalog.pg_proc p where p.oid = $1",
        &[arg(function)],
        |r| {
            Ok(Shape {
                name: spi::required(r, 1)?,
                owner: spi::required(r, 2)?,
                kind: spi::required(r, 3)?,
                set: spi::required(r, 4)?,
                arguments: spi::required(r, 5)?,
                result: spi::required(r, 6)?,
                provided: spi::required(r, 7)?,
            })
        },
    )?
    .pop()
    .ok_or_else(|| {
        Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
            format!("function with OID {} does not exist", function.to_u32()),
        )
    })
}

/// Memoizes a function in all flows. Only the function's owner may do this, because it affects
/// everybody who uses the function.
pub fn memoize(
    function: pg_sys::Oid,
    version: Option<&str>,
    batch: Option<BatchFunction>,
    ttl: Option<Interval>,
) -> Result<()> {
    let own = shape(function)?;
    check_owner(&own)?;
    if own.provided {
        return Err(Error::invalid(format!("function {} is always memoized in flows", own.name)));
    }
    let refused = match (own.kind.as_str(), own.set) {
        ("f", false) if [pg_sys::RECORDOID, pg_sys::RECORDARRAYOID].contains(&own.result) => Some(
            ("The function returns a record.", Some("Return a composite type or jsonb instead.")),
        ),
        ("f", true) => Some((
            "The function returns a set.",
            Some("Return an array or jsonb instead, and unnest the result in the query."),
        )),
        ("f", false) => None,
        ("p", _) => Some(("It is a procedure.", None)),
        _ => Some(("It is an aggregate or a window function.", None)),
    };
    if let Some((why, hint)) = refused {
        let error = Error::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("function {} cannot be memoized", own.name),
        )
        .detail(why);
        return Err(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        });
    }
    if ttl.is_some_and(|ttl| ttl.as_micros() <= 0) {
        return Err(Error::invalid("argument \"ttl\" must be greater than 0")
            .hint("Omit it, or pass NULL, to use results of any age."));
    }
    let over = match &batch {
        Some(batch) => Some(check_batch(&own, batch)?),
        None => None,
    };
    let _as = RoleGuard::extension_owner()?;
    spi::execute(
        "insert into coco_internal.memo_function (function, owner, version, batch, batch_owner, batch_size, ttl)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (function) do update
            set owner = excluded.owner, version = excluded.version, batch = excluded.batch,
                batch_owner = excluded.batch_owner, batch_size = excluded.batch_size,
                ttl = excluded.ttl",
        &[
            arg(own.name),
            arg(own.owner),
            arg(version),
            arg(over.as_ref().map(|o| o.name.as_str())),
            arg(over.as_ref().map(|o| o.owner)),
            arg(batch.as_ref().map(|b| b.size)),
            arg(ttl),
        ],
    )?;
    invalidation::note_change()
}

fn check_owner(own: &Shape) -> Result<()> {
    match acting_role::has_rights_of(own.owner) {
        true => Ok(()),
        false => Err(Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must be owner of function {}", own.name),
        )
        .hint("Write a function of your own that calls it, and memoize your function.")),
    }
}

/// Checks that `batch` is a batch function of the other function, and that the current role has its
/// owner's rights. Returns its properties.
fn check_batch(own: &Shape, batch: &BatchFunction) -> Result<Shape> {
    let over = shape(batch.function)?;
    check_owner(&over)?;
    if batch.size < 1 {
        return Err(Error::invalid(format!(
            "argument \"batch_size\" ({}) must be greater than 0",
            batch.size
        )));
    }
    check_fits(own, &over)?;
    Ok(over)
}

/// A matching batch function: its owner, and the element types of the arrays that it takes and
/// returns.
pub struct Fitting {
    pub owner: pg_sys::Oid,
    pub arguments: Vec<pg_sys::Oid>,
    pub result: pg_sys::Oid,
}

/// Checks that `batch` is, at this moment, a batch function of `function`.
pub fn fitting(function: pg_sys::Oid, batch: pg_sys::Oid) -> Result<Fitting> {
    let (own, over) = (shape(function)?, shape(batch)?);
    check_fits(&own, &over)?;
    Ok(Fitting { owner: over.owner, arguments: own.arguments, result: own.result })
}

fn check_fits(own: &Shape, over: &Shape) -> Result<()> {
    // SAFETY: a catalog lookup in a transaction.
    let array_of = |t: pg_sys::Oid| unsafe { pg_sys::get_array_type(t) };
    let arrays: Vec<pg_sys::Oid> = own.arguments.iter().map(|t| array_of(*t)).collect();
    let fits = over.arguments == arrays
        && over.result == array_of(own.result)
        && over.kind == "f"
        && !over.set
        && !arrays.contains(&pg_sys::InvalidOid);
    match fits {
        true => Ok(()),
        false => Err(Error::new(
            PgSqlErrorCode::ERRCODE_INVALID_FUNCTION_DEFINITION,
            format!("function {} is not a batch function of {}", over.name, own.name),
        )
        .hint(
            "Write a function that takes an array for each argument and returns an array of the \
             results.",
        )),
    }
}

/// Stops memoizing a function. coco deletes its stored results when it evaluates the items that use
/// them.
pub fn unmemoize(function: pg_sys::Oid) -> Result<()> {
    let own = shape(function)?;
    check_owner(&own)?;
    let _as = RoleGuard::extension_owner()?;
    let gone = spi::execute(
        "delete from coco_internal.memo_function where function = $1",
        &[arg(own.name.as_str())],
    )?;
    if gone == 0 {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("function {} is not memoized", own.name),
        ));
    }
    invalidation::note_change()
}

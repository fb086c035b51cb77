//! The options of foreign servers, user mappings and external targets: checks, validators and the
//! list `coco.connector_options`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use serde_json::{Map, Value};

use crate::pg::acting_role;
use crate::pg::error::{Error, Result};
use crate::pg::json::Json;
use coco_connectors::targets::Connector;
use coco_connectors::{providers, targets};
use coco_core::change::{Encoding, TargetSchema};
use coco_core::options::{OptionScope, OptionSpec};

/// Checks that a connector accepts a target with these options and columns. Returns how coco
/// encodes values for the connector.
pub fn check(connector: &str, shape: &TargetSchema) -> Result<Encoding> {
    let connector = connector_of(connector)?;
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let given: Vec<(String, String)> =
        shape.options.iter().map(|(name, value)| (name.clone(), text(value))).collect();
    check_options(&Wrapper::of(connector), OptionScope::Target, &given)?;
    (connector.check)(shape)
        .map_err(|why| Error::invalid(format!("target \"{}\": {why}", shape.target)))?;
    Ok(connector.encoding)
}

/// Checks that a connector accepts other options of a target. An option that decides which objects
/// the target writes to must stay as it is.
pub fn check_altered(
    connector: &str,
    before: &TargetSchema,
    after: &TargetSchema,
) -> Result<Encoding> {
    let encoding = check(connector, after)?;
    let mut fixed = connector_of(connector)?.options.iter();
    let changed = fixed.find(|spec| {
        let is_fixed = spec.scope == OptionScope::Target && spec.fixed;
        is_fixed && before.options.get(spec.name) != after.options.get(spec.name)
    });
    match changed {
        None => Ok(encoding),
        Some(spec) => Err(Error::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("cannot alter option \"{}\" of target \"{}\"", spec.name, after.target),
        )
        .detail("The option decides which objects the target writes to, so the rows that were sent before would stay where they are.")
        .hint("Declare another target, or drop the flow with coco.drop_flow and declare it again.")),
    }
}

/// Parses the options of a target, which must be a JSON object or NULL.
pub fn options(given: Option<Json>) -> Result<Map<String, Value>> {
    match given.map(|json| json.value("argument \"options\"")).transpose()? {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(options)) => Ok(options),
        Some(_) => Err(Error::invalid("argument \"options\" is not a JSON object")
            .hint("Use, for example, options => '{\"name\": \"value\"}'.")),
    }
}

fn connector_of(name: &str) -> Result<&'static Connector> {
    targets::connector(name).ok_or_else(|| {
        let known: Vec<&str> = targets::ALL.iter().map(|c| c.name).collect();
        Error::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("foreign data wrapper \"{name}\" is not a connector of coco"),
        )
        .hint(format!("Use a server of one of these wrappers: {}.", known.join(", ")))
    })
}

/// The name and the options of a foreign data wrapper.
struct Wrapper {
    name: &'static str,
    options: &'static [OptionSpec],
}

impl Wrapper {
    fn of(connector: &Connector) -> Wrapper {
        Wrapper { name: connector.name, options: connector.options }
    }

    /// Returns the wrapper of a connector or of a provider.
    fn named(name: &'static str) -> Result<Wrapper> {
        match providers::options(name) {
            Some(options) => Ok(Wrapper { name, options }),
            None => connector_of(name).map(Wrapper::of),
        }
    }
}

/// Checks the options of a server, a user mapping or a target.
fn check_options(wrapper: &Wrapper, on: OptionScope, given: &[(String, String)]) -> Result<()> {
    let specs: Vec<&OptionSpec> = wrapper.options.iter().filter(|s| s.scope == on).collect();
    for (name, value) in given {
        let Some(spec) = specs.iter().find(|s| s.name == name) else {
            return Err(unknown(wrapper, on, &specs, name));
        };
        if spec.superuser && !acting_role::is_superuser() {
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied to set option \"{name}\""),
            )
            .detail("Only superusers may set this option."));
        }
        if let Err(why) = (spec.check)(value) {
            let shown = if spec.secret { String::new() } else { format!(" (\"{value}\")") };
            return Err(Error::new(
                PgSqlErrorCode::ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE,
                format!("option \"{name}\"{shown} {why}"),
            )
            .hint(format!("{name}: {}.", spec.description.trim_end_matches('.'))));
        }
    }
    let missing = specs.iter().find(|s| s.required && !given.iter().any(|(n, _)| n == s.name));
    match missing {
        None => Ok(()),
        Some(spec) => Err(Error::new(
            PgSqlErrorCode::ERRCODE_FDW_OPTION_NAME_NOT_FOUND,
            format!("option \"{}\" is missing", spec.name),
        )
        .hint(format!("{}: {}.", spec.name, spec.description.trim_end_matches('.')))),
    }
}

fn unknown(wrapper: &Wrapper, on: OptionScope, specs: &[&OptionSpec], name: &str) -> Error {
    let what = match on {
        OptionScope::Server => "a server",
        OptionScope::UserMapping => "a user mapping",
        OptionScope::Target => "a target",
    };
    let error = Error::new(
        PgSqlErrorCode::ERRCODE_FDW_INVALID_OPTION_NAME,
        format!("invalid option \"{name}\" of {what} of {}", wrapper.name),
    );
    if wrapper.options.iter().any(|s| s.name == name && s.scope == OptionScope::UserMapping) {
        return error.hint(
            "Set this option in the user mapping: CREATE USER MAPPING FOR … SERVER … OPTIONS (…).",
        );
    }
    let names: Vec<&str> = specs.iter().map(|s| s.name).collect();
    match names.is_empty() {
        true => error.hint("There are no valid options in this context."),
        false => error.hint(format!("Valid options in this context are: {}.", names.join(", "))),
    }
}

#[pg_extern(sql = false)]
fn connector_options() -> TableIterator<
    'static,
    (
        name!(wrapper, &'static str),
        name!(scope, &'static str),
        name!(option, &'static str),
        name!(required, bool),
        name!(secret, bool),
        name!(superuser, bool),
        name!(description, &'static str),
    ),
> {
    let connectors = targets::ALL.iter().map(|connector| Wrapper::of(connector));
    let rows: Vec<_> = connectors
        .chain(Wrapper::named(providers::MODELS).ok())
        .flat_map(|wrapper| wrapper.options.iter().map(move |spec| (wrapper.name, spec)))
        .map(|(wrapper, s)| {
            let place = match s.scope {
                OptionScope::Server => "server",
                OptionScope::UserMapping => "user mapping",
                OptionScope::Target => "target",
            };
            (wrapper, place, s.name, s.required, s.secret, s.superuser, s.description)
        })
        .collect();
    TableIterator::new(rows)
}

/// Checks the options given to CREATE or ALTER SERVER and CREATE or ALTER USER MAPPING.
fn validate(
    wrapper: &'static str,
    options: Vec<Option<String>>,
    catalog: pg_sys::Oid,
) -> Result<()> {
    let on = match catalog {
        pg_sys::ForeignServerRelationId => OptionScope::Server,
        pg_sys::UserMappingRelationId => OptionScope::UserMapping,
        // The wrapper itself has no options.
        _ => {
            return match options.first() {
                None => Ok(()),
                Some(_) => Err(Error::new(
                    PgSqlErrorCode::ERRCODE_FDW_INVALID_OPTION_NAME,
                    format!("foreign data wrapper \"{wrapper}\" has no options"),
                )),
            };
        }
    };
    let given: Vec<(String, String)> = options
        .into_iter()
        .flatten()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (pair, String::new()),
        })
        .collect();
    check_options(&Wrapper::named(wrapper)?, on, &given)
}

macro_rules! validator {
    ($function:ident, $connector:literal) => {
        #[pg_extern(sql = false)]
        fn $function(
            options: Vec<Option<String>>,
            catalog: pg_sys::Oid,
        ) -> std::result::Result<(), ErrorReport> {
            Ok(validate($connector, options, catalog)?)
        }
    };
}

validator!(postgres_validator, "coco_postgres");

validator!(qdrant_validator, "coco_qdrant");

validator!(neo4j_validator, "coco_neo4j");

validator!(kafka_validator, "coco_kafka");

validator!(http_validator, "coco_http");

validator!(openai_validator, "coco_openai");

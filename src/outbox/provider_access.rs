//! The options with which a role calls a provider: the server of a function over the network.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::outbox::foreign_server;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};
use coco_core::options::{Access, Options};

/// Reads the options of a server, and of the user mapping of the role, or of PUBLIC. Fails if the
/// server has another foreign data wrapper, or if the role has no USAGE on it.
pub fn access(name: &str, role: pg_sys::Oid, wrapper: &str) -> Result<Access> {
    let found = foreign_server::connector_for(name, role).map_err(|error| match error.code {
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT => error.hint(format!(
            "Create the server with CREATE SERVER … FOREIGN DATA WRAPPER {wrapper} OPTIONS (url '…')."
        )),
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE => error.hint(format!(
            "GRANT USAGE ON FOREIGN SERVER {} TO the calling role.",
            spi::ident(name)
        )),
        _ => error,
    })?;
    if found != wrapper {
        return Err(Error::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("server \"{name}\" has foreign data wrapper \"{found}\""),
        )
        .hint(format!("Name a server whose foreign data wrapper is \"{wrapper}\".")));
    }
    let given = foreign_server::server_options(name, role)?;
    let options = |pairs: Vec<(String, String)>| Options(pairs.into_iter().collect());
    Ok(Access { server: options(given.server), user: options(given.user), trusted: given.trusted })
}

/// A server, and its option `url`.
pub struct Base {
    pub server: String,
    pub url: String,
}

/// Returns the servers of a foreign data wrapper that a role may use, ordered by name.
pub fn bases(wrapper: &str, role: pg_sys::Oid) -> Result<Vec<Base>> {
    spi::select(
        "select s.srvname::text, o.option_value::text
           from pg_catalog.pg_foreign_server s
           join pg_catalog.pg_foreign_data_wrapper w on w.oid = s.srvfdw
          cross join lateral pg_catalog.pg_options_to_table(s.srvoptions) o
          where w.fdwname = $1::text and o.option_name = 'url'
            and has_server_privilege($2, s.oid, 'usage')
          order by s.srvname",
        &[arg(wrapper), arg(role)],
        |r| Ok(Base { server: spi::required(r, 1)?, url: spi::required(r, 2)? }),
    )
}

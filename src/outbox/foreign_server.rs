//! Foreign servers: a server's connector, the rights on it, and its options.

use pgrx::{PgSqlErrorCode, pg_sys};
use std::ffi::{CStr, CString};

use crate::catalog::model::Target;
use crate::pg::error::{Error, Result};
use crate::pg::spi::{self, arg};
use coco_core::change::{Column, TargetSchema};

/// Returns the foreign data wrapper of a server. Fails if the role has no USAGE on the server.
pub fn connector_for(server: &str, role: pg_sys::Oid) -> Result<String> {
    let found = spi::select(
        "select w.fdwname::text, has_server_privilege($2, s.oid, 'usage')
           from pg_catalog.pg_foreign_server s
           join pg_catalog.pg_foreign_data_wrapper w on w.oid = s.srvfdw
          where s.srvname = $1::text",
        &[arg(server), arg(role)],
        |r| Ok((spi::required::<String>(r, 1)?, spi::required::<bool>(r, 2)?)),
    )?;
    match found.into_iter().next() {
        None => Err(Error::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("server \"{server}\" does not exist"),
        )
        .hint("Create the server with CREATE SERVER … FOREIGN DATA WRAPPER coco_postgres OPTIONS (…). If it was renamed, give it its old name again.")),
        Some((_, false)) => Err(Error::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for foreign server {server}"),
        )
        .hint(format!(
            "GRANT USAGE ON FOREIGN SERVER {} TO the flow's owner.",
            spi::ident(server)
        ))),
        Some((connector, true)) => Ok(connector),
    }
}

/// The options, including secrets, with which a role connects to a server.
pub struct ServerOptions {
    pub server: Vec<(String, String)>,
    /// The options of the role's user mapping, or of PUBLIC's; empty if there is no mapping.
    pub user: Vec<(String, String)>,
    /// Whether the role is a superuser.
    pub trusted: bool,
}

/// Reads the options of a server and of a role's user mapping for it.
pub fn server_options(server: &str, role: pg_sys::Oid) -> Result<ServerOptions> {
    let name =
        CString::new(server).map_err(|_| Error::invalid("server name contains a NUL byte"))?;
    // SAFETY: catalog lookups in a transaction; the results are allocated in its memory context.
    unsafe {
        let found = pg_sys::GetForeignServerByName(name.as_ptr(), false);
        let options = pairs((*found).options)?;
        let server = (*found).serverid;
        let user = match is_mapped(role, server) || is_mapped(pg_sys::InvalidOid, server) {
            true => pairs((*pg_sys::GetUserMapping(role, server)).options)?,
            false => vec![],
        };
        Ok(ServerOptions { server: options, user, trusted: pg_sys::superuser_arg(role) })
    }
}

/// Reports whether a role, or PUBLIC (`InvalidOid`), has a user mapping. Reads the syscache,
/// because not every role may read the catalog.
unsafe fn is_mapped(role: pg_sys::Oid, server: pg_sys::Oid) -> bool {
    let none = pg_sys::Datum::null();
    // SAFETY: a catalog lookup in a transaction.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::USERMAPPINGUSERSERVER as i32;
        pg_sys::SearchSysCacheExists(cache, role.into(), server.into(), none, none)
    }
}

/// Reads options as the catalogs store them: a list of DefElem with string values.
unsafe fn pairs(options: *mut pg_sys::List) -> Result<Vec<(String, String)>> {
    let text = |c: *const std::ffi::c_char| {
        // SAFETY: a string from the catalogs.
        let text = unsafe { CStr::from_ptr(c) };
        text.to_str().map(str::to_owned).map_err(|_| Error::invalid("option is not valid UTF-8"))
    };
    let mut all = Vec::new();
    if options.is_null() {
        return Ok(all);
    }
    // SAFETY: the caller passes a list of DefElem.
    unsafe {
        for n in 0..(*options).length as usize {
            let element = (*(*options).elements.add(n)).ptr_value.cast::<pg_sys::DefElem>();
            all.push((text((*element).defname)?, text(pg_sys::defGetString(element))?));
        }
    }
    Ok(all)
}

/// Returns the description of a target that coco passes to its connector.
pub fn target_schema(flow: &str, target: &Target) -> Result<TargetSchema> {
    let Some(external) = &target.external else {
        return Err(Error::internal("local target has no connector"));
    };
    let mut columns = Vec::new();
    for column in &target.columns {
        let (schema, name) = spi::select(
            "select n.nspname::text, case when n.nspname = 'pg_catalog' then format_type(t.oid, $2)
                    else replace(format_type(t.oid, $2), quote_ident(n.nspname) || '.', '') end
               from pg_catalog.pg_type t join pg_catalog.pg_namespace n on n.oid = t.typnamespace
              where t.oid = $1",
            &[arg(column.type_oid), arg(column.typmod)],
            |r| Ok((spi::required::<String>(r, 1)?, spi::required::<String>(r, 2)?)),
        )?
        .pop()
        .ok_or_else(|| Error::internal("type of a column does not exist"))?;
        columns.push(Column { name: column.name.clone(), type_schema: schema, type_name: name });
    }
    let place = |k: &String| target.columns.iter().position(|c| c.name == *k);
    Ok(TargetSchema {
        flow: flow.to_owned(),
        target: external.name.clone(),
        key: target.key_names.iter().filter_map(place).collect(),
        columns,
        options: external.options.clone(),
    })
}

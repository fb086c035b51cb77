//! Switches the role and settings of a piece of work: to the caller, a flow's owner, or the
//! extension's owner.
//!
//! Callers: every room.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CString;

use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::json::Json;
use crate::pg::spi::{self, PATH};

/// Settings that affect the result of a query. coco stores their values at the declaration of a
/// flow, so that a result never depends on the session that computes it.
pub const DECLARED: [&str; 4] =
    ["TimeZone", "default_text_search_config", "lc_time", "lc_monetary"];

/// The name of the search path among the settings of a flow.
pub const SEARCH_PATH: &str = "search_path";

/// Returns the name of a setting of flows as coco stores it; `None` if no flow has the setting. Case
/// does not matter.
pub fn declared_setting(name: &str) -> Option<&'static str> {
    DECLARED.into_iter().find(|known| known.eq_ignore_ascii_case(name))
}

/// Settings that affect the text form of values, and on which coco itself relies.
const PINNED: [(&str, &str); 7] = [
    ("array_nulls", "on"),
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
];

/// The security context for a temporary role: no object or setting can be left behind that outlives
/// the role.
const RESTRICTED: i32 =
    (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION) as i32;

fn path() -> &'static str {
    PATH.to_str().unwrap_or("pg_catalog")
}

/// The settings that a flow runs under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedGucs(Vec<(String, String)>);

impl SavedGucs {
    /// Returns the current settings of the session, with this search path.
    pub fn of_caller(search_path: &str) -> Result<SavedGucs> {
        let mut all = vec![(SEARCH_PATH.to_owned(), search_path.to_owned())];
        for name in DECLARED {
            let value =
                spi::scalar::<String>("select pg_catalog.current_setting($1)", &[spi::arg(name)])?;
            all.push((name.to_owned(), value.unwrap_or_default()));
        }
        Ok(SavedGucs(all))
    }

    /// Returns settings with only pg_catalog on the search path, for coco's own statements.
    pub fn qualifying() -> SavedGucs {
        SavedGucs::of_path(path())
    }

    /// Returns settings with only a search path.
    pub fn of_path(search_path: &str) -> SavedGucs {
        SavedGucs(vec![(SEARCH_PATH.to_owned(), search_path.to_owned())])
    }

    /// Returns the search path.
    pub fn search_path(&self) -> &str {
        self.value(SEARCH_PATH).unwrap_or_default()
    }

    /// Returns the names and values.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Gives a setting another value.
    pub fn replace(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Returns the value of a setting.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.pairs().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    pub fn to_json(&self) -> Json {
        let pairs = self.0.iter().map(|(n, v)| (n.clone(), serde_json::Value::from(v.clone())));
        Json::from(serde_json::Value::Object(pairs.collect()))
    }

    pub fn from_json(json: &Json) -> Result<SavedGucs> {
        let json = json.value("coco_internal.flow")?;
        let pairs = json.as_object().into_iter().flatten();
        let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        Ok(SavedGucs(pairs.map(|(n, v)| (n.clone(), text(v))).collect()))
    }
}

/// The extension in this database.
#[derive(Clone, Copy)]
struct Extension {
    owner: pg_sys::Oid,
    /// Whether its version is the library's.
    fits: bool,
}

thread_local! {
    /// The extension, as of an invalidation count.
    static EXTENSION: Cell<Option<(u64, Extension)>> = const { Cell::new(None) };
}

/// The version of the library.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of the extension from which no upgrade script leads to a later one.
const WITHOUT_UPGRADE: &str = "0.1.0";

fn extension() -> Result<Extension> {
    let generation = invalidation::invalidation_count();
    if let Some((_, known)) = EXTENSION.get().filter(|(g, _)| *g == generation) {
        return Ok(known);
    }
    let found = spi::select(
        "select extowner, extversion operator(pg_catalog.=) $1 from pg_catalog.pg_extension
          where extname operator(pg_catalog.=) 'coco'",
        &[spi::arg(VERSION)],
        |r| Ok(Extension { owner: spi::required(r, 1)?, fits: spi::required(r, 2)? }),
    )?;
    let found = found
        .into_iter()
        .next()
        .ok_or_else(|| Error::internal("extension coco is not installed in this database"))?;
    EXTENSION.set(Some((generation, found)));
    Ok(found)
}

/// Raises an error, with both versions, if the catalog belongs to another version than the library.
pub fn check_version() -> Result<()> {
    // A changed version alone causes no invalidation message.
    EXTENSION.set(None);
    if extension()?.fits {
        return Ok(());
    }
    let installed = spi::scalar::<String>(
        "select extversion from pg_catalog.pg_extension where extname operator(pg_catalog.=) 'coco'",
        &[],
    )?
    .unwrap_or_default();
    let hint = match parts(&installed) < parts(VERSION) {
        true if installed == WITHOUT_UPGRADE => {
            "Version 0.1.0 has no upgrade script: run DROP EXTENSION coco CASCADE and CREATE EXTENSION coco, and declare the flows again. Target tables stay."
        }
        true => {
            "Run ALTER EXTENSION coco UPDATE. Until then, captured tables can still be written."
        }
        false => {
            "Install the library of that version, and restart the server if coco is in shared_preload_libraries. Until then, captured tables can still be written."
        }
    };
    Err(Error::new(
        pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "coco's library is version {VERSION}, the extension in this database is {installed}"
        ),
    )
    .hint(hint))
}

/// Returns the numbers of a version, for comparison.
fn parts(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// Acts as another role until dropped. A (sub)transaction that aborts also restores the role.
pub struct RoleGuard {
    user: pg_sys::Oid,
    security: i32,
    guc_level: i32,
}

impl RoleGuard {
    /// Acts as the flow's owner, in a security-restricted operation and with the settings of the
    /// flow's declaration. coco analyzes, plans and runs everything that a user wrote in this way.
    pub fn flow_owner(owner: pg_sys::Oid, settings: &SavedGucs) -> Result<RoleGuard> {
        let acting = RoleGuard::switch(owner, RESTRICTED);
        for (name, value) in &settings.0 {
            match name.as_str() {
                SEARCH_PATH => acting.set(name, &temporary_last(value))?,
                _ => acting.set(name, value)?,
            }
        }
        for (name, value) in PINNED {
            acting.set(name, value)?;
        }
        Ok(acting)
    }

    /// Acts as the extension's owner, in a security-restricted operation, for coco's catalog and
    /// its own tables, which nobody else may write. Only pg_catalog is on the search path, also
    /// within the work of a flow or a writer, because their operators and functions must not run
    /// with these rights.
    ///
    /// Returns an error if the catalog belongs to another version than the library: see
    /// [`check_version`].
    pub fn extension_owner() -> Result<RoleGuard> {
        if !extension()?.fits {
            check_version()?;
        }
        RoleGuard::writing_log()
    }

    /// Acts as the extension's owner for writers to captured tables, whatever the versions: they
    /// read and write the same in all versions.
    pub fn writing_log() -> Result<RoleGuard> {
        let acting = RoleGuard::switch(extension()?.owner, RESTRICTED);
        acting.set("search_path", path())?;
        Ok(acting)
    }

    /// Keeps the role, with only pg_catalog on the search path. Names that PostgreSQL prints
    /// (format_type, regclass) then contain their schema.
    pub fn qualifying_names() -> Result<RoleGuard> {
        let acting = RoleGuard::same();
        acting.set("search_path", path())?;
        Ok(acting)
    }

    /// Keeps the role, so that the caller can set settings temporarily.
    pub fn same() -> RoleGuard {
        RoleGuard::switch(current(), 0)
    }

    /// Keeps the role, for statements that find rows by their keys. Plans then assume that a random
    /// page costs little more than the next page, as is true for cached pages and solid-state
    /// disks. With PostgreSQL's default, a plan reads a whole table if it needs one row in a
    /// hundred.
    pub fn finding_by_key() -> Result<RoleGuard> {
        const ELSEWHERE: f64 = 1.1;
        let acting = RoleGuard::same();
        // SAFETY: reads the backend's own state.
        if unsafe { pg_sys::random_page_cost } > ELSEWHERE {
            acting.set("random_page_cost", &ELSEWHERE.to_string())?;
        }
        Ok(acting)
    }

    /// Keeps the role, for statements that compute a value for each row of a table. Plans then
    /// assume that passing a row between processes costs less than computing its fingerprint, which
    /// is true. With PostgreSQL's default, a single process does all the work. JIT compilation is
    /// off, because functions take most of the time.
    pub fn sharing_rows() -> Result<RoleGuard> {
        const HANDED_OVER: f64 = 0.01;
        let acting = RoleGuard::same();
        // SAFETY: reads the backend's own state.
        if unsafe { pg_sys::parallel_tuple_cost } > HANDED_OVER {
            acting.set("parallel_tuple_cost", &HANDED_OVER.to_string())?;
        }
        acting.set("jit", "off")?;
        Ok(acting)
    }

    /// Keeps the role, for locks for which the caller waits at most this many milliseconds (55P03).
    pub fn waiting_at_most(milliseconds: u32) -> Result<RoleGuard> {
        let acting = RoleGuard::same();
        acting.set("lock_timeout", &milliseconds.to_string())?;
        Ok(acting)
    }

    fn switch(to: pg_sys::Oid, add: i32) -> RoleGuard {
        let mut user = pg_sys::InvalidOid;
        let mut security = 0;
        // SAFETY: reads and writes the backend's own state; `drop` restores it.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut security);
            pg_sys::SetUserIdAndSecContext(to, security | add);
            RoleGuard { user, security, guc_level: pg_sys::NewGUCNestLevel() }
        }
    }

    /// Sets a setting until the guard is dropped, unless the value is not valid. Returns whether it is
    /// valid.
    pub fn try_set(&self, name: &str, value: &str) -> Result<bool> {
        let c =
            |s: &str| CString::new(s).map_err(|_| Error::invalid("setting contains a NUL byte"));
        let (name, value) = (c(name)?, c(value)?);
        // SAFETY: both strings outlive the call, which copies them. Below the level ERROR, the call
        // returns 0 for a value that is not valid.
        let set = unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                pg_sys::DEBUG5 as i32,
                false,
            )
        };
        Ok(set > 0)
    }

    /// Sets a setting until the guard is dropped.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let c =
            |s: &str| CString::new(s).map_err(|_| Error::invalid("setting contains a NUL byte"));
        let (name, value) = (c(name)?, c(value)?);
        // SAFETY: both strings outlive the call, which copies them.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        Ok(())
    }
}

impl Drop for RoleGuard {
    fn drop(&mut self) {
        // SAFETY: restores what `switch` saved; nest levels are closed in reverse order.
        unsafe {
            pg_sys::AtEOXact_GUC(false, self.guc_level);
            pg_sys::SetUserIdAndSecContext(self.user, self.security);
        }
    }
}

/// Returns a search path on which temporary objects come last, so that they cannot hide objects
/// that existed at a flow's declaration.
fn temporary_last(path: &str) -> String {
    let named = path.split(',').any(|part| part.trim().trim_matches('"') == "pg_temp");
    match (named, path.trim().is_empty()) {
        (true, _) => path.to_owned(),
        (_, true) => "pg_temp".to_owned(),
        _ => format!("{path}, pg_temp"),
    }
}

/// Returns the role whose rights the caller currently has.
pub fn current() -> pg_sys::Oid {
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::GetUserId() }
}

/// Reports whether the caller is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::superuser() }
}

/// Reports whether the caller is that role, a member of it, or a superuser.
pub fn has_rights_of(role: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup within a transaction.
    unsafe { pg_sys::has_privs_of_role(current(), role) }
}

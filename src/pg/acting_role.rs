//! Whose rights a piece of work has: the caller's, a flow owner's, or the extension owner's.

use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::CString;

use crate::pg::error::{Error, Result};
use crate::pg::invalidation;
use crate::pg::json::Json;
use crate::pg::spi::{self, PATH};

/// Settings that reach into what a query returns, kept as they were when the flow was declared: a
/// result never depends on whose session computed it.
const DECLARED: [&str; 4] = ["TimeZone", "default_text_search_config", "lc_time", "lc_monetary"];

/// Settings that reach into how values are written as text, and which coco itself relies on.
const PINNED: [(&str, &str); 7] = [
    ("array_nulls", "on"),
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
    ("datestyle", "ISO, MDY"),
    ("intervalstyle", "postgres"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
];

/// A role's rights for a while, in which nothing that outlives them can be left behind.
const RESTRICTED: i32 =
    (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION) as i32;

fn path() -> &'static str {
    PATH.to_str().unwrap_or("pg_catalog")
}

/// The settings that a flow runs under.
#[derive(Clone, Debug)]
pub struct SavedGucs(Vec<(String, String)>);

impl SavedGucs {
    /// Those of the session now, with this search path.
    pub fn of_caller(search_path: &str) -> Result<SavedGucs> {
        let mut all = vec![("search_path".to_owned(), search_path.to_owned())];
        for name in DECLARED {
            let value =
                spi::scalar::<String>("select pg_catalog.current_setting($1)", &[spi::arg(name)])?;
            all.push((name.to_owned(), value.unwrap_or_default()));
        }
        Ok(SavedGucs(all))
    }

    /// Nothing but pg_catalog on the search path: for statements of coco's own alone.
    pub fn qualifying() -> SavedGucs {
        SavedGucs(vec![("search_path".to_owned(), path().to_owned())])
    }

    pub fn to_json(&self) -> Json {
        let pairs = self.0.iter().map(|(n, v)| (n.clone(), serde_json::Value::from(v.clone())));
        Json::from(serde_json::Value::Object(pairs.collect()))
    }

    pub fn from_json(json: &Json) -> Result<SavedGucs> {
        let json = json.value("coco.flow")?;
        let pairs = json.as_object().into_iter().flatten();
        let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
        Ok(SavedGucs(pairs.map(|(n, v)| (n.clone(), text(v))).collect()))
    }
}

/// The extension in this database.
#[derive(Clone, Copy)]
struct Extension {
    owner: pg_sys::Oid,
    /// Its version is the library's.
    fits: bool,
}

thread_local! {
    /// The extension, as of a generation of the system catalogs.
    static EXTENSION: Cell<Option<(u64, Extension)>> = const { Cell::new(None) };
}

/// The version of the library.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

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

/// Refuses to work with a catalog that was made for another version of the library. Returns an error that says which
/// two versions there are.
pub fn check_version() -> Result<()> {
    // No invalidation message says that the version changed alone.
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
        true => {
            "ALTER EXTENSION coco UPDATE brings it to the library's version. Writers go on meanwhile."
        }
        false => {
            "Install the library of that version, and restart the server if coco is in shared_preload_libraries. Writers go on meanwhile."
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

/// The numbers of a version, to be compared.
fn parts(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// Another role's rights until it is dropped. A (sub)transaction that aborts restores them too.
pub struct RoleGuard {
    user: pg_sys::Oid,
    security: i32,
    guc_level: i32,
}

impl RoleGuard {
    /// The flow's owner, as a security-restricted operation and with the settings the flow was
    /// declared under: how everything a user wrote is analysed, planned and run.
    pub fn flow_owner(owner: pg_sys::Oid, settings: &SavedGucs) -> Result<RoleGuard> {
        let acting = RoleGuard::switch(owner, RESTRICTED);
        for (name, value) in &settings.0 {
            match name.as_str() {
                "search_path" => acting.set(name, &temporary_last(value))?,
                _ => acting.set(name, value)?,
            }
        }
        for (name, value) in PINNED {
            acting.set(name, value)?;
        }
        Ok(acting)
    }

    /// The extension's owner, as a security-restricted operation: for coco's catalog and its own tables, which no
    /// one else may write. Nothing but pg_catalog is on the search path, also inside a flow's or a writer's own: an
    /// operator or a function of theirs must not run with these rights.
    ///
    /// Refuses where the catalog is another version's than the library: see [`check_version`].
    pub fn extension_owner() -> Result<RoleGuard> {
        if !extension()?.fits {
            check_version()?;
        }
        RoleGuard::writing_log()
    }

    /// The same for writers to captured tables, whatever the versions: what they read and write is the same in all.
    pub fn writing_log() -> Result<RoleGuard> {
        let acting = RoleGuard::switch(extension()?.owner, RESTRICTED);
        acting.set("search_path", path())?;
        Ok(acting)
    }

    /// The same role with nothing but pg_catalog on its search path: names that Postgres writes
    /// (format_type, regclass) then carry their schema.
    pub fn qualifying_names() -> Result<RoleGuard> {
        let acting = RoleGuard::same();
        acting.set("search_path", path())?;
        Ok(acting)
    }

    /// The same role, to set settings for a while.
    pub fn same() -> RoleGuard {
        RoleGuard::switch(current(), 0)
    }

    /// The same role, for statements that find rows by their keys: they are planned as if a page elsewhere
    /// cost little more than the next one, as is so of what is cached or on a disk without an arm. With
    /// Postgres' own figure a table is read as a whole where a hundredth of its rows are wanted.
    pub fn finding_by_key() -> Result<RoleGuard> {
        const ELSEWHERE: f64 = 1.1;
        let acting = RoleGuard::same();
        // SAFETY: reads the backend's own state.
        if unsafe { pg_sys::random_page_cost } > ELSEWHERE {
            acting.set("random_page_cost", &ELSEWHERE.to_string())?;
        }
        Ok(acting)
    }

    /// The same role, for statements that compute something of each row of a table: they are planned as if to hand
    /// a row from one process to another cost less than to compute a fingerprint of it, as is so. With Postgres'
    /// own figure a single process does it all. Nor are they compiled: functions take the time.
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

    fn switch(to: pg_sys::Oid, add: i32) -> RoleGuard {
        let mut user = pg_sys::InvalidOid;
        let mut security = 0;
        // SAFETY: plain reads and writes of the backend's own state; undone in `drop`.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut user, &mut security);
            pg_sys::SetUserIdAndSecContext(to, security | add);
            RoleGuard { user, security, guc_level: pg_sys::NewGUCNestLevel() }
        }
    }

    /// Sets a setting until it is dropped.
    pub fn set(&self, name: &str, value: &str) -> Result<()> {
        let c = |s: &str| CString::new(s).map_err(|_| Error::invalid("a setting with a NUL byte"));
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
        // SAFETY: restores what `switch` found; nest levels are closed in reverse order.
        unsafe {
            pg_sys::AtEOXact_GUC(false, self.guc_level);
            pg_sys::SetUserIdAndSecContext(self.user, self.security);
        }
    }
}

/// A search path on which nothing temporary comes before what was there when a flow was declared.
fn temporary_last(path: &str) -> String {
    let named = path.split(',').any(|part| part.trim().trim_matches('"') == "pg_temp");
    match (named, path.trim().is_empty()) {
        (true, _) => path.to_owned(),
        (_, true) => "pg_temp".to_owned(),
        _ => format!("{path}, pg_temp"),
    }
}

/// The role whose rights the caller has now.
pub fn current() -> pg_sys::Oid {
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::GetUserId() }
}

/// Whether the caller is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: reads the backend's own state.
    unsafe { pg_sys::superuser() }
}

/// Whether the caller is that role, a member of it, or a superuser.
pub fn has_rights_of(role: pg_sys::Oid) -> bool {
    // SAFETY: a syscache look-up inside a transaction.
    unsafe { pg_sys::has_privs_of_role(current(), role) }
}

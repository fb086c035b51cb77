//! Cases: what people ran into elsewhere, by their public reports, tried on flows.
//!
//! Each file of `cases/` says in its head which report it follows and what is expected, and asks for it with the
//! functions of `cases/lab.sql`, which raise an error where something else comes. psql runs it in a database of its
//! own, and stops at the first error.

use crate::support;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use support::document::{path_of, run};
use support::server::{Server, SharedServer};

/// Cases that fail, each with what is to be mended. One that passes fails its test: it is to be taken off.
const KNOWN: &[(&str, &str)] = &[];

macro_rules! cases {
    ($($name:ident)*) => {
        const RUN: &[&str] = &[$(stringify!($name)),*];
        $(#[test]
        fn $name() {
            runs(stringify!($name));
        })*
    };
}

cases! {
    adopted_tables
    char_and_domain_keys_listed
    column_privileges
    computed_fields
    counters_two_levels
    daylight_saving
    ddl_audit_event_trigger
    enum_rename_value
    equal_but_not_identical_keys
    extension_types_move
    float_sums
    group_loses_collation
    group_min_of_a_c_column
    group_too_large
    inheritance
    key_int_to_bigint
    long_keys
    merge_and_ctes
    name_resolution_drift
    nan_infinity_group
    narrower_typmods
    not_null_not_valid_key
    null_and_empty_target_keys
    odd_names
    over_100_columns
    owners_change
    partitions_of_another_shape
    plans_and_sessions
    poison_json
    poison_where_changes_are_found
    preview_and_lineage_names
    row_security
    schema_rename
    stored_expression_and_rewrites
    swap_of_a_second_unique
    system_columns
    table_swapped_by_rename
    target_altered_live
    temp_table_shadows
    truncate_cascade_and_chains
    types_renamed
    unique_dropped
    used_things_dropped_by_cascade
    views_as_sources
    virtual_set_expression
    which_unique_index
    whole_row_add_column
}

#[test]
fn every_case_is_run() {
    let mut there = BTreeSet::new();
    for entry in std::fs::read_dir(path_of("tests/cases")).expect("a folder").flatten() {
        let path = entry.path();
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if name != "lab" {
            there.insert(name);
        }
    }
    let run: BTreeSet<String> = RUN.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(run, there);
    let known: Vec<&&str> = KNOWN.iter().map(|(n, _)| n).filter(|n| !run.contains(**n)).collect();
    assert!(known.is_empty(), "no cases: {known:?}");
}

/// The server that all cases share.
fn shared() -> Arc<Server> {
    static SHARED: SharedServer = SharedServer::new();
    SHARED.get()
}

fn file(name: &str) -> PathBuf {
    path_of(&format!("tests/cases/{name}.sql"))
}

fn runs(name: &str) {
    let server = shared();
    let text = std::fs::read_to_string(file(name)).expect("a case");
    let needed = text.lines().find_map(|line| line.strip_prefix("-- Needs: PostgreSQL "));
    let mut session = server.database(name);
    let version = session.number("select current_setting('server_version_num')::int / 10000");
    if needed.is_some_and(|needed| needed.trim().parse::<i64>().expect("a version") > version) {
        return;
    }
    session.run(&std::fs::read_to_string(file("lab")).expect("a file"));
    let (fine, said) = run(&mut psql(&server.url(name), name), "", true);
    drop(session);
    server.connect("postgres").run(&format!("drop database {name} with (force)"));
    match KNOWN.iter().find(|(known, _)| *known == name) {
        None => assert!(fine, "{name}:\n{said}"),
        Some((_, why)) => assert!(!fine, "{name} passes: take it off KNOWN ({why})"),
    }
}

/// psql over a case, which a statement that does not end must not hold up.
fn psql(url: &str, name: &str) -> Command {
    let bin = std::env::var("COCO_TEST_PG_BIN")
        .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
    let mut psql = Command::new(format!("{bin}/psql"));
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f"]);
    psql.arg(file(name)).env("PGOPTIONS", "-c statement_timeout=120s").current_dir("/");
    psql
}

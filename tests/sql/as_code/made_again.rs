//! Flows that are declared again: what they keep, and whose their tables are.

use super::{Hearing, declare, fails, replace, rows, run, text};
use crate::support::{TestDb, explain};

const MANAGED: &str =
    "select string_agg(flow || ' ' || managed, ' ' order by flow) from coco.targets";

#[test]
fn a_flow_that_is_declared_again_keeps_its_properties() {
    let mut db = TestDb::new("as_code_kept");
    declare(&mut db);
    db.run("select coco.alter_flow('f', label => 'v1', batch_size => 3, paused => true, lineage_index => true)");
    let properties = "select concat_ws('|', label, batch_size, paused, lineage_index, live, owner) from coco.flows";
    let before = text(&mut db.client, properties);
    let id = text(&mut db.client, "select id from coco_internal.flow");
    let mut session = Hearing::new(&db);
    // Another source key and another target key.
    let said = session.run(
        "select coco.create_flow('f', 'd', 'select v, count(*) as n from d group by v', 't', '{v}',
           source_key => '{v}', or_replace => true)",
    );
    assert_eq!(said.first().map(String::as_str), Some("changing flow \"f\""), "{said:?}");
    assert_ne!(text(&mut db.client, "select id from coco_internal.flow"), id);
    assert_eq!(text(&mut db.client, properties), before);
    assert_eq!(text(&mut db.client, MANAGED), "f true");
    // The table was made to fit: nothing of its old rows is left under another key.
    assert_eq!(text(&mut db.client, "select count(*) from t"), "0");
    db.run("select coco.alter_flow('f', paused => false)");
    assert_eq!(db.update("f", "normal")[0].upserted, 10);
    db.verify_clean("f");
    // Another target: the old table is nobody's, and stays.
    db.run(
        "select coco.create_flow('f', 'd', 'select v, count(*) as n from d group by v', 'u', '{v}',
           source_key => '{v}', or_replace => true)",
    );
    assert_eq!(db.update("f", "normal")[0].upserted, 10);
    assert_eq!(text(&mut db.client, "select count(*) from t"), "10");
    db.run("select coco.drop_flow('f', keep_targets => false)");
    assert_eq!(
        text(&mut db.client, "select concat_ws('|', to_regclass('t'), to_regclass('u'))"),
        "t"
    );
}

#[test]
fn a_failing_replacement_leaves_the_flow_as_it_was() {
    let mut db = TestDb::new("as_code_failing");
    declare(&mut db);
    let before = rows(&mut db.client, super::CATALOG);
    for (call, sqlstate) in [
        ("'d', 'select id, v from d', 't', '{id}', source_key => '{nothing}'", "42703"),
        ("'d', 'select id, nothing from d', 'u', '{id}'", "42703"),
        ("'d', 'select id, v from d', 't', '{nothing}'", "42703"),
        ("'d', 'select id from pg_class', 't', '{id}'", "42703"),
    ] {
        fails(
            &mut db.client,
            &format!("select coco.create_flow('f', {call}, or_replace => true)"),
            sqlstate,
        );
        assert_eq!(rows(&mut db.client, super::CATALOG), before, "{call}");
    }
    db.verify_clean("f");
}

#[test]
fn a_role_that_replaces_anothers_flow_leaves_it_to_its_owner() {
    let mut db = TestDb::new("as_code_owner");
    db.run(
        "do $$ begin create role coco_as_code_owner login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to coco_as_code_owner; create schema o authorization coco_as_code_owner",
    );
    let mut owner = db.connect_as("coco_as_code_owner");
    run(
        &mut owner,
        "set search_path = o; create table d (id int primary key, v int not null); insert into d values (1, 1);
         select coco.create_flow('f', 'd', 'select id, current_user::text as who from d', 't', '{id}')",
    );
    let of = "select f.owner::text || ' ' || c.relowner::regrole || ' ' || t.managed
                from coco.flows f join coco.targets t using (flow) join pg_class c on c.oid = t.relation";
    for query in [
        "select id, current_user::text as who from d where id > 0",
        "select v, min(current_user::text) as who from d group by v",
    ] {
        let key = if query.contains("min") { "'{v}', source_key => '{v}'" } else { "'{id}'" };
        db.run(&format!("select coco.create_flow('f', 'o.d', '{query}', 't', {key}, search_path => 'o', or_replace => true)"));
        assert_eq!(text(&mut db.client, of), "coco_as_code_owner coco_as_code_owner true");
        db.update("f", "normal");
        assert_eq!(text(&mut db.client, "select who from o.t"), "coco_as_code_owner");
    }
}

#[test]
fn a_table_that_coco_made_is_managed_again() {
    let mut db = TestDb::new("as_code_managed");
    let create = "select coco.create_flow('f', 'd', 'select id, v * 2 as v from d where v > 0', 't', '{id}')";
    declare(&mut db);
    db.run("select coco.drop_flow('f')");
    db.run(create);
    assert_eq!(text(&mut db.client, MANAGED), "f true");
    assert_eq!(db.update("f", "normal")[0].upserted, 0);
    assert_eq!(text(&mut db.client, "select count(*) from coco_internal.made_target"), "0");
    // As long as it fits: who drops a flow may have kept the table for its data.
    db.run("select coco.drop_flow('f')");
    let other = "select coco.create_flow('f', 'd', 'select id, t from d', 't', '{id}')";
    fails(&mut db.client, other, "42804");
    db.run(create);
    // An adopted table stays adopted.
    db.run(
        "create table a (id int primary key, v int);
         select coco.create_flow('g', 'd', 'select id, v from d', 'a', '{id}'); select coco.drop_flow('g');
         select coco.create_flow('g', 'd', 'select id, v from d', 'a', '{id}')",
    );
    assert_eq!(text(&mut db.client, MANAGED), "f true g false");
    // So does one of the same name that coco did not make.
    db.run("select coco.drop_flow('f'); drop table t; create table t (id int primary key, v int)");
    db.run(create);
    assert_eq!(text(&mut db.client, MANAGED), "f false g false");
    // A table that is gone is forgotten with the next flow that is dropped.
    db.run(
        "select coco.create_flow('h', 'd', 'select id from d', 'h', '{id}'); select coco.drop_flow('h'); drop table h;
         select coco.drop_flow('g')",
    );
    assert_eq!(text(&mut db.client, "select count(*) from coco_internal.made_target"), "0");
}

#[test]
fn nobody_makes_a_table_of_another_role_managed() {
    let mut db = TestDb::new("as_code_forged");
    for role in ["coco_forging_a", "coco_forging_b"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$;
             grant usage on schema coco to {role}; create schema {role} authorization {role}"
        ));
    }
    let mut a = db.connect_as("coco_forging_a");
    let mut b = db.connect_as("coco_forging_b");
    run(
        &mut a,
        "set search_path = coco_forging_a; create table d (id int primary key); insert into d values (1);
         grant usage on schema coco_forging_a to coco_forging_b; grant select on d to coco_forging_b;
         select coco.create_flow('a', 'd', 'select id from d', 't', '{id}'); select coco.update('a');
         select coco.drop_flow('a'); grant all on t to coco_forging_b",
    );
    for sql in [
        "insert into coco_internal.made_target values ('coco_forging_a.t', 'coco_forging_b')",
        "update coco_internal.made_target set owner = 'coco_forging_b'",
        "select * from coco_internal.made_target",
    ] {
        fails(&mut b, sql, "42501");
    }
    // A flow over another role's table adopts it, and so does one over a table that was given away.
    let create = "select coco.create_flow('b', 'coco_forging_a.d', 'select id from coco_forging_a.d', 'coco_forging_a.t', '{id}', capture => 'scan')";
    run(&mut b, create);
    assert_eq!(text(&mut b, MANAGED), "b false");
    run(&mut b, "select coco.drop_flow('b', keep_targets => false)");
    assert_eq!(text(&mut db.client, "select count(*) from coco_forging_a.t"), "1");
    run(
        &mut b,
        "create table coco_forging_b.d (id int primary key); select coco.create_flow('b', 'coco_forging_b.d', 'select id from coco_forging_b.d', 'coco_forging_b.t', '{id}');
         select coco.drop_flow('b')",
    );
    db.run("alter table coco_forging_b.t owner to coco_forging_a; grant usage on schema coco_forging_b to coco_forging_a");
    db.run("grant all on coco_forging_b.t to coco_forging_b");
    let again = "select coco.create_flow('b', 'coco_forging_b.d', 'select id from coco_forging_b.d', 'coco_forging_b.t', '{id}')";
    b.batch_execute(again).unwrap_or_else(|e| panic!("{}", explain(&e)));
    assert_eq!(text(&mut b, MANAGED), "b false");
}

#[test]
fn a_replaced_table_gets_the_columns_and_the_key_of_its_query() {
    let mut db = TestDb::new("as_code_fitted");
    declare(&mut db);
    db.run(&replace("select id, t as v, v as w from d", ", source_key => '{id,v}'"));
    assert_eq!(db.update("f", "normal")[0].upserted, 10);
    assert_eq!(text(&mut db.client, "select v || w from t where id = 3"), "t33");
    db.run("select coco.create_flow('f', 'd', 'select t as name, id from d', 't', '{name}', or_replace => true)");
    assert_eq!(db.update("f", "normal")[0].upserted, 10);
    let key = "select string_agg(a.attname, ',') from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
                where i.indrelid = 't'::regclass and i.indisprimary";
    assert_eq!(text(&mut db.client, key), "name");
    db.verify_clean("f");
    // A column that is no longer in the key may be NULL.
    db.run(
        "update d set t = null where id = 1;
         select coco.create_flow('f', 'd', 'select id, t as name from d', 't', '{id}', or_replace => true)",
    );
    assert_eq!(db.update("f", "normal")[0].failed, 0);
    assert_eq!(text(&mut db.client, "select count(*) from t where name is null"), "1");
    db.verify_clean("f");
}

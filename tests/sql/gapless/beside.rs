//! Versions beside the other things that flows do: updates of several flows, names, definitions and alterations.

use super::{FLOWS, fails, text, with_flow};

#[test]
fn updates_of_several_flows_follow_versions() {
    let mut db = with_flow("several");
    db.run("select coco.set_query('f', null, 'select id, v * 2 as v from d', gapless => true); select coco.update_all()");
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "110");
    assert_eq!(text(&mut db.client, FLOWS), "f public.t");
    db.run(
        "select coco.set_query('f', null, 'select id, v * 3 as v from d', gapless => true);
         select coco.update('f', upstream => true)",
    );
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "165");
    db.run("select coco.set_query('f', null, 'select id, v from d', gapless => true, swap => 'manual')");
    // The rows are those of the flow itself.
    let updated = "select string_agg(flow, ',') from coco.update_all()";
    assert_eq!(text(&mut db.client, updated), "f");
    assert_eq!(text(&mut db.client, "select sum(v) from \"t@new\""), "55");
    db.run("select coco.swap('f')");
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "55");
    db.verify_clean("f");
}

#[test]
fn versions_have_the_name_of_their_flow() {
    let mut db = with_flow("names");
    db.run(
        "select coco.set_query('f', null, 'select id, v * 2 as v from d', gapless => true, swap => 'manual');
         select coco.update('f')",
    );
    let definitions = "select string_agg(flow, ',') from coco.definitions()";
    assert_eq!(text(&mut db.client, definitions), "f");
    fails(&mut db.client, "select * from coco.plan('f@new')", "42939");
    fails(&mut db.client, "select coco.create_flow('f@new', or_replace => true)", "42939");
    fails(&mut db.client, "select coco.rename_flow('f', 'g@old')", "42939");
    fails(&mut db.client, "select coco.rename_flow('f@new', 'g')", "55000");
    db.run("select coco.rename_flow('f', 'g')");
    let flows = "select string_agg(flow, ',' order by flow) from coco.flows";
    assert_eq!(text(&mut db.client, flows), "g,g@new");
    db.run("select coco.swap('g')");
    assert_eq!(text(&mut db.client, FLOWS), "g public.t");
    db.run("update d set v = 11 where id = 1");
    assert_eq!(db.update("g", "normal")[0].evaluated, 1);
    assert_eq!(text(&mut db.client, "select sum(v) from t"), "130");
    db.verify_clean("g");
}

#[test]
fn a_flow_with_a_new_version_is_not_altered() {
    let mut db = with_flow("altered");
    db.run("select coco.set_query('f', null, 'select id, v * 2 as v from d', gapless => true)");
    fails(&mut db.client, "select coco.alter_flow('f', search_path => 'public')", "55000");
    fails(&mut db.client, "select coco.alter_flow('f', refresh_interval => '5 s')", "55000");
    db.run("select coco.alter_flow('f', label => 'one', batch_size => 3)");
    db.update("f", "normal");
    let properties = "select row(label, batch_size) from coco.flows";
    assert_eq!(text(&mut db.client, properties), "(one,3)");
    db.run("select coco.alter_flow('f', refresh_interval => '5 s')");
    db.verify_clean("f");
}

#[test]
fn a_column_is_not_null_as_long_as_the_query_allows() {
    let mut db = with_flow("not_null");
    let declared =
        "select attnotnull from pg_attribute where attrelid = 't'::regclass and attname = 'v'";
    assert_eq!(text(&mut db.client, declared), "true");
    db.run(
        "select coco.set_query('f', null, 'select id, nullif(v, 5) as v from d', gapless => true)",
    );
    assert_eq!(db.update("f", "normal")[0].failed, 0);
    assert_eq!(text(&mut db.client, declared), "false");
    assert_eq!(text(&mut db.client, "select count(*) from t where v is null"), "1");
    db.run("select coco.set_query('f', null, 'select id, v from d', gapless => true)");
    db.update("f", "normal");
    assert_eq!(text(&mut db.client, declared), "true");
    assert_eq!(text(&mut db.client, "select not_null from coco_internal.target"), "{v}");
    db.verify_clean("f");
}

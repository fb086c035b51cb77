//! Schedules of flows (`refresh`): how they are declared, altered, compared and written out, and what is refused.

use crate::support;

use postgres::Client;
use support::{TestDb, explain};

fn text(client: &mut Client, sql: &str) -> String {
    let row = client.query_one(&format!("select ({sql})::text"), &[]);
    let row = row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or_else(|| "NULL".to_owned())
}

fn fails(db: &mut TestDb, sql: &str, sqlstate: &str) -> String {
    let e = db.client.batch_execute(sql).expect_err(sql);
    assert_eq!(e.code().map(|c| c.code()), Some(sqlstate), "{sql}: {}", explain(&e));
    let e = e.as_db_error().expect("an error of the server");
    format!("{}|{}|{}", e.message(), e.detail().unwrap_or_default(), e.hint().unwrap_or_default())
}

fn with_table(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("schedules_{name}"));
    db.run(
        "create table d (id int primary key, v int);
         insert into d select i, i from generate_series(1, 5) i",
    );
    db
}

/// A call of a function that declares flow `f`.
fn declare(function: &str, more: &str) -> String {
    format!(
        "coco.{function}(flow => 'f', source => 'd', query => 'select id, v from d', target => 't', key => '{{id}}'{more})"
    )
}

fn refresh(db: &mut TestDb) -> String {
    text(&mut db.client, "select refresh from coco.flows where flow = 'f'")
}

#[test]
fn a_schedule_is_declared_and_altered() {
    let mut db = with_table("declared");
    db.run(&format!("select {}", declare("create_flow", "")));
    assert_eq!(refresh(&mut db), "NULL");
    for (given, kept) in [
        ("5 minutes", "5 minutes"),
        ("  1 day 02:30 ", "1 day 02:30"),
        ("0 3 * * *", "0 3 * * *"),
        ("@daily", "@daily"),
        ("*/15 9-17 * * MON-FRI", "*/15 9-17 * * MON-FRI"),
        ("commit", "NULL"),
    ] {
        db.run(&format!("select coco.alter_flow('f', refresh => '{given}')"));
        assert_eq!(refresh(&mut db), kept, "{given}");
    }
    // A schedule is no matter of the logic: nothing is evaluated because of it.
    db.update("f", "normal");
    db.run("select coco.alter_flow('f', refresh => '1 hour')");
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    // NULL leaves it as it is, and so does a change of another property.
    db.run("select coco.alter_flow('f', refresh => null, label => 'v1')");
    assert_eq!(refresh(&mut db), "1 hour");
    db.run("select coco.drop_flow('f')");
    db.run(&format!("select {}", declare("create_flow", ", refresh => '10 min'")));
    assert_eq!(refresh(&mut db), "10 min");
    // A flow that is not live has no next update, whatever its schedule.
    db.update("f", "normal");
    let state =
        "select state || ' ' || (next_update is null) from coco.status_detail where flow = 'f'";
    assert_eq!(text(&mut db.client, state), "up to date true");
    db.run("insert into d values (6, 6)");
    assert_eq!(text(&mut db.client, state), "behind true");
    // An empty flow has one, too.
    db.run("select coco.create_flow('empty', refresh => '@hourly')");
    let empty = "select refresh from coco.flows where flow = 'empty'";
    assert_eq!(text(&mut db.client, empty), "@hourly");
}

#[test]
fn wrong_schedules_are_refused() {
    let mut db = with_table("wrong");
    db.run(&format!("select {}", declare("create_flow", ", refresh => '1 hour'")));
    for (given, detail) in [
        ("", "\"\" is neither an interval nor a cron line."),
        ("often", "\"often\" is neither an interval nor a cron line."),
        ("0 s", "The interval is shorter than one second."),
        (
            "1 month",
            "\"1 month\" contains months or years, which have no fixed length; a cron line can name a day of a month.",
        ),
        ("0 24 * * *", "\"24\" is not valid for the hour, which is from 0 to 23."),
        (
            "* * *",
            "A cron line has five fields: minute, hour, day of the month, month, day of the week.",
        ),
        ("0 0 31 2 *", "No day matches the cron line."),
        ("@sometimes", "\"@sometimes\" is not the name of a cron line."),
    ] {
        let expected = format!(
            "invalid refresh schedule: \"{given}\"|{detail}|Use commit, an interval of at least one second such as '5 minutes', or a cron line such as '0 3 * * *'."
        );
        let calls = [
            format!("select coco.alter_flow('f', refresh => '{given}')"),
            format!("select coco.create_flow('g', refresh => '{given}')"),
            format!(
                "select {}",
                declare("create_flow", &format!(", or_replace => true, refresh => '{given}'"))
            ),
            format!("select * from {}", declare("plan", &format!(", refresh => '{given}'"))),
        ];
        for call in calls {
            assert_eq!(fails(&mut db, &call, "22023"), expected, "{call}");
        }
    }
    assert_eq!(refresh(&mut db), "1 hour");
    assert_eq!(text(&mut db.client, "select count(*) from coco.flows where flow = 'g'"), "0");
}

#[test]
fn a_schedule_is_planned_replaced_and_written_out() {
    let mut db = with_table("code");
    let create = |more: &str| format!("select {}", declare("create_flow", more));
    let plan = |more: &str| {
        format!(
            "select coalesce(string_agg(concat_ws('|', object, name, change, effect), ' ' order by change), 'none') from {}",
            declare("plan", more)
        )
    };
    db.run(&create(", refresh => '5 minutes'"));
    db.update("f", "normal");
    // The same length of time is the same schedule, and so is a declaration that does not name one.
    for same in ["", ", refresh => '300 s'", ", refresh => '00:05'", ", refresh => null"] {
        assert_eq!(text(&mut db.client, &plan(same)), "none", "{same}");
        db.run(&create(&format!(", or_replace => true{same}")));
        assert_eq!(refresh(&mut db), "5 minutes");
    }
    let nothing = "no item is evaluated because of this";
    assert_eq!(
        text(&mut db.client, &plan(", refresh => '0 3 * * *'")),
        format!("flow|f|refresh 5 minutes becomes 0 3 * * *|{nothing}")
    );
    assert_eq!(
        text(&mut db.client, &plan(", refresh => 'commit'")),
        format!("flow|f|refresh 5 minutes becomes commit|{nothing}")
    );
    assert_eq!(refresh(&mut db), "5 minutes");
    db.run(&create(", or_replace => true, refresh => '0 3 * * 0'"));
    assert_eq!(refresh(&mut db), "0 3 * * 0");
    assert_eq!(text(&mut db.client, &plan(", refresh => '0 3 * * sun'")), "none");
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    // A flow that is declared again keeps its schedule, unless the declaration names another one.
    db.run("create table e (id int primary key, v int)");
    let over_e = |more: &str| {
        format!(
            "select coco.create_flow('f', 'e', 'select id, v from e', 't', '{{id}}', or_replace => true{more})"
        )
    };
    db.run(&over_e(""));
    assert_eq!(refresh(&mut db), "0 3 * * 0");
    db.run("select coco.drop_flow('f')");
    db.run(&create(", refresh => '1 day'"));
    db.run(&over_e(", refresh => 'commit'"));
    assert_eq!(refresh(&mut db), "NULL");
    // The definition declares it, of a flow in one call and of one in parts.
    db.run("select coco.alter_flow('f', refresh => '30 2 1 * *')");
    db.run("select coco.create_flow('parts', refresh => '1 week'); select coco.add_source('parts', 'd'); select coco.add_source('parts', 'e')");
    for (flow, kept) in [("f", "30 2 1 * *"), ("parts", "1 week")] {
        let definition = text(&mut db.client, &format!("select coco.flow_definition('{flow}')"));
        assert!(definition.contains(&format!("refresh => '{kept}'")), "{definition}");
        db.run(&format!("select coco.drop_flow('{flow}')"));
        db.run(&definition);
        let refresh = format!("select refresh from coco.flows where flow = '{flow}'");
        assert_eq!(text(&mut db.client, &refresh), kept);
        assert_eq!(
            text(&mut db.client, &format!("select coco.flow_definition('{flow}')")),
            definition
        );
    }
}

#[test]
fn a_new_version_takes_over_the_schedule_when_it_replaces_the_flow() {
    let mut db = with_table("version");
    db.run(&format!("select {}", declare("create_flow", ", refresh => '@yearly'")));
    db.update("f", "normal");
    db.run("select coco.set_query('f', null, 'select id, v + 1 as v from d', gapless => true, swap => 'manual', keep_old => '1 day')");
    let all = "select string_agg(concat_ws(' ', flow, coalesce(refresh, 'commit')), ', ' order by flow) from coco.flows";
    assert_eq!(text(&mut db.client, all), "f @yearly, f@new commit");
    db.run("select coco.alter_flow('f', refresh => '@monthly')");
    db.run("select coco.swap('f')");
    assert_eq!(text(&mut db.client, all), "f @monthly, f@old @monthly");
    db.run("select coco.alter_flow('f', refresh => '1 hour')");
    db.run("select coco.rollback('f')");
    assert_eq!(refresh(&mut db), "1 hour");
    db.verify_clean("f");
}

#[test]
fn schedules_of_others_are_not_seen() {
    let mut db = with_table("rights");
    db.run(&format!("select {}", declare("create_flow", ", refresh => '1 hour'")));
    db.run(
        "do $$ begin create role schedules_other; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to schedules_other",
    );
    db.run("update coco_internal.flow set live = true");
    let rows = "select count(*) from coco_internal.schedule_rows()";
    assert_eq!(text(&mut db.client, rows), "1");
    db.run("set role schedules_other");
    assert_eq!(text(&mut db.client, "select count(*) from coco.flows"), "0");
    assert_eq!(text(&mut db.client, "select count(*) from coco.status_detail"), "0");
    fails(&mut db, "select coco.alter_flow('f', refresh => 'commit')", "42501");
    fails(&mut db, "select * from coco_internal.scheduled_run", "42501");
    fails(&mut db, rows, "42501");
    db.run("reset role; update coco_internal.flow set live = false");
}

//! What a first fill sends: what an update by batches would send.

use super::{MANY, check_indexes, content, is_filled, many};
use crate::sides::{counted, text};
use crate::support::TestDb;

#[test]
fn a_fill_sends_what_batches_send() {
    let (mut db, mut other) = many("external_fill");
    db.run("create function quiet() returns trigger language plpgsql as 'begin return new; end'");
    for (shape, query, key, options) in [
        ("rows", "select upper(body) as body, id, n from src", "{id}", ""),
        (
            "pieces",
            "select id, k, substr(body, 1, 40) || k as piece from src, generate_series(1, n % 4) as k",
            "{k,id}",
            "",
        ),
        (
            "groups",
            "select n, count(*) as many, string_agg(body, ',' order by id) as bodies from src group by n",
            "{n}",
            ", source_key => '{n}'",
        ),
        ("none", "select id, body from src where id < 0", "{id}", ""),
    ] {
        let batched = format!("{shape}_batched");
        for flow in [shape, &batched] {
            db.run(&format!(
                "select coco.create_flow('{flow}', 'src', $q${query}$q$, '{flow}', '{key}', server => 'pg'{options});
                 select coco.add_target('{flow}', '{flow}_here', $q${query}$q$, '{key}')"
            ));
        }
        let ledger = |db: &mut TestDb, flow: &str| {
            let sql = format!(
                "select relation::text from coco_internal.target where flow = '{flow}' and outbox is not null"
            );
            text(&mut db.client, &sql)
        };
        let (filled, beside) = (ledger(&mut db, shape), ledger(&mut db, &batched));
        // A trigger wants more than rows and index entries: batch by batch.
        db.run(&format!(
            "create trigger quiet before insert on {beside} for each row execute function quiet()"
        ));
        let counts = [shape, &batched].map(|flow| db.update(flow, "normal").remove(0));
        assert_eq!(counts[0], counts[1], "{shape}");
        assert!(is_filled(&mut db, shape), "{shape}");
        assert!(!is_filled(&mut db, &batched), "{shape}");
        let mut same = |db: &mut TestDb| {
            assert_eq!(content(&mut db.client, &filled), content(&mut db.client, &beside));
            let there = content(&mut other.client, shape);
            assert_eq!(there, content(&mut other.client, &batched), "{shape}");
            assert_eq!(there, content(&mut db.client, &format!("{shape}_here")), "{shape}");
            db.verify_clean(shape);
            check_indexes(db, shape);
        };
        same(&mut db);
        // From there on it is one as any other.
        db.run("update src set body = 'new' where id in (3, 7); delete from src where id = 5");
        for mode in ["normal", "reexport"] {
            let counts = [shape, &batched].map(|flow| db.update(flow, mode).remove(0));
            assert_eq!(counts[0], counts[1], "{shape} {mode}");
            same(&mut db);
        }
        db.run("insert into src values (5, 5, 'back')");
        for flow in [shape, &batched] {
            db.run(&format!("select coco.drop_flow('{flow}', keep_targets => false)"));
        }
    }
    assert_eq!(text(&mut other.client, "select to_regclass('rows')::text"), "");
}

#[test]
fn of_a_fill_that_fails_the_items_at_fault_are_found() {
    let (mut db, mut other) = many("external_fill_fails");
    for (flow, query, key, code, rows) in [
        ("raises", "select id, 1 / (id - 1203) as x from src", "{id}", "22012", MANY - 1),
        (
            "twice",
            "select id, k % 3 as k from src, generate_series(1, case when id = 1203 then 4 else 2 end) k",
            "{id,k}",
            "21000",
            2 * (MANY - 1),
        ),
    ] {
        db.run(&format!(
            "select coco.create_flow('{flow}', 'src', '{query}', '{flow}', '{key}', server => 'pg')"
        ));
        assert_eq!(counted(&mut db, flow), (MANY, rows, 0, 1), "{flow}");
        let errors =
            format!("select sqlstate || ' ' || source_key from coco.errors where flow = '{flow}'");
        assert_eq!(text(&mut db.client, &errors), format!("{code} {{\"id\": 1203}}"));
        let there = text(&mut other.client, &format!("select count(*)::text from {flow}"));
        assert_eq!(there, rows.to_string(), "{flow}");
        check_indexes(&mut db, flow);
        db.verify_clean(flow);
    }
}

#[test]
fn a_row_of_a_fill_is_evaluated_once() {
    let (mut db, mut other) = many("external_fill_once");
    db.run(
        "create sequence seen;
         select coco.create_flow('f', 'src', 'select id, nextval(''seen'') as no from src', 'out', '{id}', server => 'pg')",
    );
    assert_eq!(counted(&mut db, "f"), (MANY, MANY, 0, 0));
    assert!(is_filled(&mut db, "f"));
    let last = text(&mut db.client, "select last_value::text from seen");
    let there = "select count(distinct no) || ' ' || max(no) from out";
    assert_eq!(text(&mut other.client, there), format!("{MANY} {last}"));
    assert_eq!(last, MANY.to_string());
}

//! The order of a first update (`fill_order`): by the ordinals of the items.

use crate::support;

use support::{TestDb, explain};

fn text(db: &mut TestDb, sql: &str) -> String {
    let row = db.client.query_one(&format!("select ({sql})::text"), &[]);
    let row = row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    row.get::<_, Option<String>>(0).unwrap_or_else(|| "NULL".to_owned())
}

fn fails(db: &mut TestDb, sql: &str) -> String {
    let e = db.client.batch_execute(sql).expect_err(sql);
    let e = e.as_db_error().expect("an error of the server");
    format!("{} {}", e.code().code(), e.message())
}

/// A source of 200 items whose ordinals follow no other order, and a function that flows memoize.
fn with_items(name: &str) -> TestDb {
    let mut db = TestDb::new(&format!("fill_order_{name}"));
    db.run(
        "create table d (id int primary key, n int not null, v int not null);
         insert into d select i, i * 7919 % 1009, i from generate_series(1, 200) i;
         create function twice(i int) returns int language plpgsql as $$ begin return i * 2; end $$;
         select coco.memoize('twice(int)')",
    );
    db
}

/// Whether the items of flow `f` were processed in the order of their ordinals.
fn is_in_order(db: &mut TestDb, direction: &str) -> bool {
    text(
        db,
        &format!(
            "select bool_and(process_ordinal >= before)
               from (select process_ordinal, lag(process_ordinal, 1, 0::bigint) over (order by source_ordinal {direction}) as before
                       from coco.tracking where flow = 'f') q"
        ),
    ) == "true"
}

#[test]
fn the_newest_items_come_first() {
    let mut db = with_items("newest");
    for (order, direction) in [("newest", "desc"), ("oldest", "asc")] {
        db.run(&format!(
            "select coco.create_flow('f', 'd', 'select id, twice(v) as v from d', 't', '{{id}}', ordinal => 'n', fill_order => '{order}');
             select coco.alter_flow('f', batch_size => 10)"
        ));
        assert_eq!(db.update("f", "normal")[0].evaluated, 200);
        assert!(is_in_order(&mut db, direction), "{order}");
        db.verify_clean("f");
        // So does an update because of another query.
        let other = if order == "newest" { "oldest" } else { "newest" };
        db.run(&format!("select coco.alter_flow('f', fill_order => '{other}')"));
        db.run("select coco.set_query('f', null, 'select id, twice(v) + 1 as v from d')");
        assert_eq!(db.update("f", "normal")[0].evaluated, 200);
        assert!(is_in_order(&mut db, if direction == "desc" { "asc" } else { "desc" }), "{other}");
        assert!(!is_in_order(&mut db, direction), "{order}");
        db.verify_clean("f");
        db.run("select coco.drop_flow('f', keep_targets => false)");
    }
}

#[test]
fn an_order_is_declared_altered_and_written_out() {
    let mut db = with_items("declared");
    let call = |function: &str, more: &str| {
        format!(
            "coco.{function}(flow => 'f', source => 'd', query => 'select id, v from d', target => 't', key => '{{id}}'{more})"
        )
    };
    let create = |more: &str| format!("select {}", call("create_flow", more));
    let order = "select fill_order from coco.flows where flow = 'f'";
    assert_eq!(
        fails(&mut db, &create(", fill_order => 'newest'")),
        "22023 argument \"fill_order\" requires a source with an ordinal"
    );
    assert_eq!(
        fails(&mut db, &create(", ordinal => 'n', fill_order => 'n desc'")),
        "22023 unrecognized value for argument \"fill_order\": \"n desc\""
    );
    db.run(&create(", ordinal => 'n'"));
    assert_eq!(text(&mut db, order), "NULL");
    db.run("select coco.alter_flow('f', fill_order => 'newest')");
    assert_eq!(text(&mut db, order), "newest");
    db.run("select coco.alter_flow('f', fill_order => 'any')");
    assert_eq!(text(&mut db, order), "NULL");
    let planned = format!(
        "select coalesce(string_agg(concat_ws('|', object, name, change, effect), ' '), 'none') from {}",
        call("plan", ", ordinal => 'n', fill_order => 'oldest'")
    );
    assert_eq!(
        text(&mut db, &planned),
        "flow|f|fill order any becomes oldest|no item is evaluated because of this"
    );
    db.run(&create(", or_replace => true, ordinal => 'n', fill_order => 'oldest'"));
    assert_eq!(text(&mut db, &planned), "none");
    db.run(&create(", or_replace => true, ordinal => 'n'"));
    assert_eq!(text(&mut db, order), "oldest");
    let definition = text(&mut db, "select coco.flow_definition('f')");
    assert!(definition.contains("fill_order => 'oldest'"), "{definition}");
    db.run("select coco.drop_flow('f')");
    db.run(&definition);
    assert_eq!(text(&mut db, order), "oldest");
    assert_eq!(text(&mut db, "select coco.flow_definition('f')"), definition);
    // A flow that loses its ordinal has no order, and its definition can still be run.
    db.run("select coco.alter_flow('f', ordinal => '')");
    assert_eq!(db.update("f", "normal")[0].evaluated, 200);
    let definition = text(&mut db, "select coco.flow_definition('f')");
    assert!(!definition.contains("fill_order"), "{definition}");
    db.verify_clean("f");
}

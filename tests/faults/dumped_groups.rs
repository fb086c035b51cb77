//! Dump and restore: groups that coco keeps by deltas go along, and nothing is evaluated again.

use crate::support;

use std::process::Command;

use support::TestDb;

fn run(program: &str, args: &[&str]) {
    let bin = std::env::var("COCO_TEST_PG_BIN")
        .expect("COCO_TEST_PG_BIN: run `make test`, which sets it");
    let ended = Command::new(format!("{bin}/{program}")).args(args).output().expect(program);
    assert!(ended.status.success(), "{ended:?}");
}

fn text(db: &mut TestDb, query: &str) -> String {
    db.client.query_one(query, &[]).expect(query).get(0)
}

#[test]
fn contributions_and_states_are_restored() {
    let mut db = TestDb::new("dumped_groups");
    db.run(
        "create table s (id int primary key, k text, v numeric, f boolean not null);
         insert into s select i, 'k' || nullif(i % 3, 0), i / 4.0, i % 2 = 0 from generate_series(1, 20) i;
         select coco.create_flow('f', 's',
           'select k, sum(v) filter (where f) as total, max(id) as most, count(*) as n from s group by k having count(*) > 1',
           't', '{k}', source_key => '{k}', aggregate => 'delta')",
    );
    db.update("f", "normal");
    let path = std::env::temp_dir().join(format!("coco-groups-{}", std::process::id()));
    let file = path.to_str().expect("a path");
    run("pg_dump", &["-Fc", "-f", file, "-d", &db.url()]);
    let mut other = TestDb::new("restored_groups");
    other.run("drop extension coco");
    run("pg_restore", &["--exit-on-error", "-d", &other.url(), file]);
    std::fs::remove_file(&path).ok();

    let c = &other.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated), (3, 0), "{c:?}");
    assert_eq!(text(&mut other, "select aggregate from coco.flows"), "delta");
    other.run("update s set v = 100 where id = 4; delete from s where id = 20");
    let c = &other.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (2, 2), "{c:?}");
    other.verify_clean("f");
    other.run("insert into s values (50, null, 1, true)");
    assert_eq!(other.update("f", "normal")[0].evaluated, 1);
    other.verify_clean("f");
}

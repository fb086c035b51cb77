//! Sources whose names are those of relations in the statements that coco composes.

use crate::support::TestDb;

const NAMES: [&str; 22] = [
    "a", "b", "c", "d", "e", "f", "g", "i", "j", "k", "l", "n", "o", "q", "r", "s", "t", "u", "v",
    "x", "item", "changed",
];

#[test]
fn a_source_may_have_the_name_of_an_alias() {
    let mut db = TestDb::new("alias_names");
    for name in NAMES {
        db.run(&format!(
            "create table {name} (id int primary key, k int not null, v int);
             insert into {name} select i, i % 50, i from generate_series(1, 200) i;
             select coco.create_flow('rows', '{name}', 'select id, v from {name}', 'rows_t', '{{id}}', ordinal => 'v');
             select coco.create_flow('unversioned', '{name}', 'select id, v from {name}', 'unversioned_t', '{{id}}');
             select coco.create_flow('groups', '{name}', 'select k, sum(v) as v from {name} group by k',
                                     'groups_t', '{{k}}', source_key => '{{k}}')"
        ));
        let flows = ["rows", "unversioned", "groups"];
        // All items, few of many, many of them, and all again.
        for change in [
            "select".to_owned(),
            format!("update {name} set v = v + 1000 where id = 7"),
            format!(
                "update {name} set v = v + 1000 where id % 2 = 0; delete from {name} where id > 190"
            ),
            format!("update {name} set v = v + 1000"),
        ] {
            db.run(&change);
            for flow in flows {
                db.update(flow, "normal");
                db.verify_clean(flow);
            }
        }
        for flow in flows {
            db.run(&format!("select coco.drop_flow('{flow}', keep_targets => false)"));
        }
        db.run(&format!("drop table {name}"));
    }
}

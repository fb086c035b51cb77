//! Dump and restore: a key with expressions goes along as it was bound, and nothing is evaluated again.

use crate::{dump, support};

use support::TestDb;

#[test]
fn expressions_of_a_key_are_restored() {
    let mut db = TestDb::new("dumped_keys");
    db.run(
        "create schema own;
         create function own.part(int) returns int immutable language sql return $1 % 10;
         create table s (id int primary key, k int not null, v int not null);
         insert into s select i, i, i from generate_series(1, 20) i;
         set search_path = own, public;
         select coco.create_flow('f', 's', 'select part(k) as p, sum(v) as total from s group by 1', 'public.t', '{p}',
                                 source_key => '{part(k)}')",
    );
    db.update("f", "normal");
    let mut other = dump::restored(&db, "restored_keys");

    let c = &other.update("f", "normal")[0];
    assert_eq!((c.seen, c.evaluated), (10, 0), "{c:?}");
    other.run("update s set k = 5 where id = 4");
    let c = &other.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (2, 2), "{c:?}");
    other.verify_clean("f");
}

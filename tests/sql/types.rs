//! Every type at every place of a flow, with hostile values: a declaration is accepted or clearly refused, and after each
//! change the target equals the plain query, compared as text.

#[path = "types/values.rs"]
mod values;

use crate::support;

use support::{TestDb, explain};
use values::{MAKE, TYPES, Type};

/// A place of a flow. `@` is the type's name, `$T` the type with its collation, `$P` the type
/// alone. Table `@_v (n, k)` has the values, and `@_d` those that
/// are distinct.
struct Place {
    setup: &'static str,
    declare: &'static str,
    query: &'static str,
    changes: &'static str,
    /// The type must have an order here.
    key: bool,
    /// Internal tables have a column of the type here.
    stored: bool,
}

const ROWS: &str = "create table @_s (id int primary key, k $T, v int not null default 0);
  insert into @_s (id, k) select n, k from @_v; insert into @_s (id, k) values (900, null)";

/// Each row gets the next row's value; then rows go, come, and get another key.
const CHANGES: &str = "update @_s s set k = v.k from @_v v where v.n = s.id % (select max(n) from @_v) + 1 and s.id % 2 = 0;
  update @_s set v = v + 1; delete from @_s where id = 1; update @_s set id = id + 100 where id = 2;
  insert into @_s (id, k) select n + 500, k from @_v";

const KEYED: &str = "create table @_s (k $T primary key, v int not null); insert into @_s select k, n from @_d where n > 1";

/// The first value is new, and comes by a changed key; the last one goes.
const KEYED_CHANGES: &str = "update @_s set v = v + 100; update @_s set k = (select k from @_d order by n limit 1) where v = (select min(v) from @_s);
  delete from @_s where v = (select max(v) from @_s); insert into @_s select k, n + 1000 from @_d on conflict do nothing";

fn check(name: &str, place: &Place) {
    let mut db = TestDb::new(&format!("types_{name}"));
    db.run(MAKE);
    run(&mut db, place, differences);
}

fn run(
    db: &mut TestDb,
    place: &Place,
    compare: impl Fn(&mut TestDb, &str, &str, &str) -> Vec<String>,
) {
    let mut wrong = Vec::new();
    let (mut accepted, mut refused) = (0, 0);
    for kind in TYPES.iter().filter(|k| k.key || !place.key) {
        let plain = kind.sql.split(" collate").next().unwrap_or(kind.sql);
        let sql =
            |text: &str| text.replace('@', kind.name).replace("$T", kind.sql).replace("$P", plain);
        let query = sql(place.query);
        make_values(db, kind);
        db.run(&sql(place.setup));
        let declared =
            db.client.batch_execute(&sql(place.declare).replace("$Q", &query.replace('\'', "''")));
        if let Err(e) = declared {
            let code = e.code().map(|c| c.code().to_owned()).unwrap_or_default();
            let clear = ["0A000", "42804", "42704", "22023"].contains(&code.as_str());
            if !(clear && kind.may_be_refused && place.stored) {
                wrong.push(format!("{}: {}", kind.name, explain(&e)));
            }
            refused += 1;
            continue;
        }
        accepted += 1;
        let mut followed = |db: &mut TestDb, when: &str| {
            let found =
                compare(db, &format!("f_{}", kind.name), &format!("{}_t", kind.name), &query);
            wrong.extend(found.iter().map(|f| format!("{} {when}: {f}", kind.name)));
        };
        followed(db, "at first");
        for change in sql(place.changes).split(';') {
            if let Err(e) = db.client.batch_execute(change) {
                panic!("{}: {change}: {}", kind.name, explain(&e));
            }
            followed(db, change.trim());
        }
    }
    println!("{accepted} types are accepted, {refused} refused");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn make_values(db: &mut TestDb, kind: &Type) {
    let (name, ty) = (kind.name, kind.sql);
    db.run(&format!("create table {name}_v (n int primary key, k {ty})"));
    let cast = ty.split(" collate").next().unwrap_or(ty);
    for (n, value) in kind.values.iter().enumerate() {
        db.run(&format!("insert into {name}_v values ({}, ({value})::{cast})", n + 1));
    }
    if kind.key {
        db.run(&format!(
            "create table {name}_d as select distinct on (k) n, k from {name}_v order by k, n"
        ));
    }
}

/// What an update, the target and `coco.verify` have wrong.
fn differences(db: &mut TestDb, flow: &str, target: &str, query: &str) -> Vec<String> {
    let counts = match support::update(&mut db.client, flow, "normal") {
        Ok(counts) => counts,
        Err(e) => return vec![format!("update: {}", explain(&e))],
    };
    if counts.iter().any(|c| c.failed > 0) {
        let errors = db.client.query(
            "select left(sqlstate || ' ' || message, 200) from coco.errors where flow = $1 limit 1",
            &[&flow],
        );
        return errors
            .iter()
            .flatten()
            .map(|r| format!("an item fails: {}", r.get::<_, String>(0)))
            .collect();
    }
    let sql = format!(
        "select 'missing ' || left(m, 100) from (select (q.*)::text as m from ({query}) q except all select (t.*)::text from {target} t) m
         union all
         select 'extra ' || left(e, 100) from (select (t.*)::text as e from {target} t except all select (q.*)::text from ({query}) q) e"
    );
    let rows = db.client.query(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e)));
    let mut found: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    match support::verify(&mut db.client, flow, false) {
        Ok(differences) => found.extend(differences.iter().map(|d| format!("coco.verify: {d}"))),
        Err(e) => found.push(format!("coco.verify: {}", explain(&e))),
    }
    found
}

const PLAIN: &str = "select coco.create_flow('f_@', '@_s', '$Q', '@_t', '{id}')";

#[test]
fn as_a_sources_key() {
    let declare = "select coco.create_flow('f_@', '@_s', '$Q', '@_t', '{k}')";
    check(
        "source_key",
        &Place {
            setup: KEYED,
            declare,
            query: "select k, v from @_s",
            changes: KEYED_CHANGES,
            key: true,
            stored: true,
        },
    );
}

#[test]
fn as_a_key_that_is_scanned() {
    let declare = "select coco.create_flow('f_@', '@_s', '$Q', '@_t', '{v}', capture => 'scan')";
    let query = "select v, k::text as k from @_s";
    check(
        "scanned_key",
        &Place { setup: KEYED, declare, query, changes: KEYED_CHANGES, key: true, stored: true },
    );
}

#[test]
fn as_a_used_column() {
    check(
        "used",
        &Place {
            setup: ROWS,
            declare: PLAIN,
            query: "select id, k from @_s",
            changes: CHANGES,
            key: false,
            stored: false,
        },
    );
}

#[test]
fn as_a_column_of_a_group() {
    let declare = "select coco.create_flow('f_@', '@_s', '$Q', '@_t', '{v}', source_key => '{v}')";
    let query =
        "select v, string_agg(k::text, '|' order by id) as ks, count(k) as n from @_s group by v";
    check(
        "in_group",
        &Place { setup: ROWS, declare, query, changes: CHANGES, key: false, stored: false },
    );
}

#[test]
fn as_a_groups_key() {
    let setup = "create table @_s (id int primary key, k $T not null, v int not null default 0);
      insert into @_s select n * 10 + i, k, i from @_d, generate_series(1, 3) i where n > 1";
    let changes = "update @_s set v = v + 1 where id % 10 = 1; delete from @_s where id % 10 = 3; insert into @_s select n * 10 + 7, k, 7 from @_d;
      update @_s s set k = (select k from @_d order by n desc limit 1) where id % 10 = 2";
    let declare = "select coco.create_flow('f_@', '@_s', '$Q', '@_t', '{k}', source_key => '{k}')";
    let query = "select k, count(*) as n, sum(v) as v from @_s group by k";
    check("group_key", &Place { setup, declare, query, changes, key: true, stored: true });
}

#[test]
fn as_a_targets_key_that_is_listed() {
    let setup = "create table @_s (id int primary key, k $T); insert into @_s select n, k from @_d where n > 1; insert into @_s values (900, null)";
    let changes = "delete from @_s where id = (select min(id) from @_s where k is not null); update @_s set id = id + 100;
      insert into @_s select n + 500, k from @_d where n = 1; update @_s set k = null where id = (select max(id) from @_s where id < 500)";
    let declare = "select coco.create_flow('f_@', '@_s', '$Q', '@_t', '{k}')";
    let query = "select k, id from @_s where k is not null";
    check("listed", &Place { setup, declare, query, changes, key: true, stored: false });
}

#[test]
fn as_a_part_of_a_targets_key() {
    let declare = "select coco.create_flow('f_@', '@_s', '$Q', '@_t', '{id,k}')";
    let query = "select id, k, v from @_s where k is not null";
    check(
        "key_part",
        &Place { setup: ROWS, declare, query, changes: CHANGES, key: true, stored: false },
    );
}

#[test]
fn as_a_lookups_key() {
    let setup = "create table @_s (id int primary key, k $T); insert into @_s select n, k from @_d; insert into @_s select n + 100, k from @_d; insert into @_s values (900, null);
      create table @_l (k $T primary key, r int not null); insert into @_l select k, n from @_d where n > 1";
    let changes = "update @_l set r = r + 10; insert into @_l select k, 0 from @_d where n = 1; delete from @_l where r = (select max(r) from @_l);
      delete from @_s where id = 101; update @_l set r = r + 1; truncate @_l";
    let declare = "select coco.create_flow('f_@'); select coco.add_source('f_@', '@_s'); select coco.add_lookup('f_@', '@_l', affects => 'select @_s.id from @_l join @_s using (k)');
      select coco.add_target('f_@', '@_t', '$Q', '{id}')";
    let query = "select @_s.id, @_l.r from @_s left join @_l using (k)";
    check("lookup", &Place { setup, declare, query, changes, key: true, stored: true });
}

#[test]
fn as_the_input_of_a_memoized_function() {
    let setup = "create table @_s (id int primary key, k $T, v int not null default 0); insert into @_s (id, k) select n, k from @_v; insert into @_s (id, k) values (900, null);
      create function @_f($P) returns text language sql immutable as 'select $1::text'; select coco.memoize(format('@_f(%s)', format_type(atttypid, null))::regprocedure) from pg_attribute where attrelid = '@_s'::regclass and attname = 'k'";
    check(
        "memo_input",
        &Place {
            setup,
            declare: PLAIN,
            query: "select id, @_f(k) as f from @_s",
            changes: CHANGES,
            key: false,
            stored: false,
        },
    );
}

#[test]
fn as_the_result_of_a_memoized_function() {
    let setup = "create table @_s (id int primary key, k $T, v int not null default 0); insert into @_s (id, k) select n, k from @_v; insert into @_s (id, k) values (900, null);
      create function @_f(int) returns $P language sql immutable as 'select k from @_v where n = $1'; select coco.memoize('@_f(int)')";
    check(
        "memo_result",
        &Place {
            setup,
            declare: PLAIN,
            query: "select id, @_f(id % 100) as f, v from @_s",
            changes: CHANGES,
            key: false,
            stored: false,
        },
    );
}

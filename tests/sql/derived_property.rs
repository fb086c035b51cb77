//! After any changes of items and of what a query reads beside them, the target equals the query: the lookups that coco
//! derives miss no affected item.
//!
//! Random queries over a small random schema, declared by the query alone. `COCO_TEST_SEED` repeats a run,
//! `COCO_TEST_ROUNDS` makes it longer or shorter.

use crate::support;

use fastrand::Rng;
use support::{TestDb, explain};

/// Queries of a run.
const QUERIES: usize = 16;

/// Updates of a query, each after some changes.
const UPDATES: usize = 8;

/// Values are few, so that most of them meet; columns are of different types, and some may be NULL.
const TABLES: &str = "
    create table s (id int primary key, x int, y int, t text);
    create table a (id int primary key, s int, b bigint, v int);
    create table b (id bigint primary key, k smallint not null, v int);
    create table c (id int primary key, k int, t varchar(3), v int);
    create table p (id int, k int, v int, primary key (id)) partition by hash (id);
    create table p0 partition of p for values with (modulus 2, remainder 0);
    create table p1 partition of p for values with (modulus 2, remainder 1);
    create view w as select b.k, b.v + p.v as v from b join p on p.k = b.id;
    insert into s select i, i % 4, i % 3, chr(96 + i % 4) from generate_series(1, 8) i;
    insert into a select i, i % 4, i % 3, i from generate_series(1, 6) i;
    insert into b select i, i % 3, i from generate_series(0, 3) i;
    insert into c select i, i % 4, chr(96 + i % 4), i from generate_series(1, 6) i;
    insert into p select i, i % 4, i from generate_series(1, 6) i";

/// Columns of a query; `@` stands for a column of the item.
const COLUMNS: [&str; 12] = [
    "(select string_agg(a.v::text, ',' order by a.v, a.id) from a where a.s = @)",
    "(select count(*) from a join b on b.id = a.b where a.s = @)",
    "(select sum(c.v) from a, b, c where a.s = @ and b.id = a.b and c.k = b.k)",
    "exists (select from b where b.k = @ and b.v > 1)",
    "(@ in (select c.k from c where c.v > 1))",
    "(select max(c.v) from c where c.k < @)",
    "(select sum(p.v) from p where p.k = @)",
    "(select count(*) from s other where other.x = @)",
    "(select sum(w.v) from w where w.k = @)",
    "(select sum(c.v) from c where c.t = s.t and c.k = @)",
    "(select count(*) from a left join c on c.k = a.b and c.v > 0 where a.s = @ and c.id is null)",
    "(select string_agg(u.v::text, ',' order by u.v) from (select v from a where s = @ union all select v from c where k = @) u)",
];

/// Joins of a query that keep one row for each item, each with its column. `#` stands for a number.
const JOINS: [(&str, &str); 7] = [
    ("left join b b# on b#.id = @", "b#.v"),
    ("left join (select k, count(*) as n from c group by k) c# on c#.k = @", "c#.n"),
    ("left join lateral (select min(a.v) as v from a where a.s = @) l# on true", "l#.v"),
    ("left join (a a# join b d# on d#.id = a#.b) on a#.id = @", "d#.v"),
    ("left join (select distinct k from b) e# on e#.k = @", "e#.k"),
    (
        "left join (select max(v) as v, k from (select * from c) i group by k) f# on f#.k = @",
        "f#.v",
    ),
    ("left join (a g# left join c h# on h#.id = g#.b) on g#.id = @", "h#.v"),
];

/// Conditions of a query.
const CONDITIONS: [&str; 6] = [
    "@ in (select b.k from b where b.v < 5)",
    "not exists (select from c where c.k = @ and c.v = 1)",
    "exists (select from a where a.s = @ and a.b in (select b.id from b))",
    "@ not in (select c.k from c where c.k is not null and c.v > 3)",
    "(@, s.t) in (select c.k, c.t from c)",
    "coalesce(@, 0) >= (select min(b.v) from b where b.k = @ or b.k = 0)",
];

fn one_of<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}

fn query(rng: &mut Rng) -> String {
    let place = |rng: &mut Rng, text: &str| {
        let column: &str = one_of(rng, &["s.x", "s.y"]);
        text.replace('@', column)
    };
    let mut columns = vec!["s.id".to_owned()];
    let (mut joins, mut conditions) = (String::new(), vec![]);
    for n in 0..rng.usize(1..3) {
        let column = one_of(rng, &COLUMNS);
        let column = place(rng, column);
        columns.push(format!("{column} as n{n}"));
    }
    for n in 0..rng.usize(0..3) {
        let (join, column) = one_of(rng, &JOINS);
        let join = place(rng, join).replace('#', &n.to_string());
        joins.push_str(&format!(" {join}"));
        columns.push(format!("{} as j{n}", column.replace('#', &n.to_string())));
    }
    if rng.u8(..3) == 0 {
        let condition = one_of(rng, &CONDITIONS);
        conditions.push(place(rng, condition));
    }
    let conditions: String = conditions.iter().map(|c| format!(" where {c}")).collect();
    format!("select {} from s{joins}{conditions}", columns.join(", "))
}

fn value(rng: &mut Rng) -> String {
    match rng.u8(..6) {
        0 => "null".to_owned(),
        _ => rng.u8(..4).to_string(),
    }
}

fn text(rng: &mut Rng) -> String {
    match rng.u8(..5) {
        0 => "null".to_owned(),
        n => format!("'{}'", char::from(b'`' + n)),
    }
}

/// A statement that changes the item's table, or another one.
fn change(rng: &mut Rng) -> String {
    let id = rng.u8(..8);
    let (one, two, three) = (value(rng), value(rng), text(rng));
    let small = rng.u8(..4);
    match rng.u8(..16) {
        0 => format!("insert into s values ({id}, {one}, {two}, {three}) on conflict do nothing"),
        1 => format!("update s set x = {one}, t = {three} where id = {id}"),
        2 => format!("update s set y = {one} where x = {small}"),
        3 => format!("delete from s where id = {id}"),
        4 => format!("insert into a values ({id}, {one}, {two}, {small}) on conflict do nothing"),
        5 => format!("update a set s = {one}, b = {two} where id = {id}"),
        6 => format!("update a set v = {small} where s = {small}"),
        7 => format!("delete from a where id = {id}"),
        8 => format!("insert into b values ({id}, {small}, {one}) on conflict do nothing"),
        9 => format!("update b set k = {small}, v = {one} where id = {id}"),
        10 => format!("delete from b where id = {id}"),
        11 => {
            format!("insert into c values ({id}, {one}, {three}, {small}) on conflict do nothing")
        }
        12 => format!("update c set k = {one}, t = {three}, v = {small} where id = {id}"),
        13 => format!("delete from c where id = {id}"),
        14 => format!("update p set k = {one}, v = {small} where id = {id}"),
        _ => match rng.u8(..4) {
            0 => format!("truncate {}", one_of(rng, &["a", "c", "p"])),
            1 => format!("delete from p where id = {id}"),
            _ => format!("insert into p values ({id}, {one}, {small}) on conflict do nothing"),
        },
    }
}

#[test]
fn the_target_equals_the_query_after_changes_on_either_side() {
    let seed = match std::env::var("COCO_TEST_SEED") {
        Ok(seed) => seed.parse().expect("COCO_TEST_SEED is a number"),
        Err(_) => fastrand::u64(1..1_000_000),
    };
    let rounds = std::env::var("COCO_TEST_ROUNDS").ok().and_then(|r| r.parse().ok());
    println!("COCO_TEST_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let mut db = TestDb::new("derived_property");
    db.run(TABLES);
    for _ in 0..rounds.unwrap_or(QUERIES) {
        let query = query(&mut rng);
        let mut log = vec![query.clone()];
        db.run(&format!("select coco.create_flow('f', $q$ {query} $q$, key => '{{id}}')"));
        let compare = format!(
            "select count(*) from ((table f except all ({query})) union all (({query}) except all table f)) d"
        );
        for _ in 0..UPDATES {
            db.update("f", "normal");
            let found = db.client.query_one(&compare, &[]);
            let found = found.unwrap_or_else(|e| panic!("{compare}: {}", explain(&e)));
            assert_eq!(found.get::<_, i64>(0), 0, "COCO_TEST_SEED={seed}\n{}", log.join(";\n"));
            for _ in 0..rng.usize(1..4) {
                let change = change(&mut rng);
                db.run(&change);
                log.push(change);
            }
            log.push("-- update".to_owned());
        }
        db.run("select coco.drop_flow('f', keep_targets => false)");
    }
}

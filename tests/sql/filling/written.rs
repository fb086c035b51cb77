//! What a first fill writes, and when others see it.

use super::{ITEMS, SOURCE, check_indexes, files, is_filled, number, once, text, tracking};
use crate::support::TestDb;

#[test]
fn a_fill_writes_what_batches_write() {
    let mut db = TestDb::new("fill_same");
    db.run(SOURCE);
    db.run("create function quiet() returns trigger language plpgsql as 'begin return new; end'");
    let more = "select coco.add_target('%', '%_more', 'select id, n, length(body) as long from src', '{id,n}')";
    let named = "select coco.add_lookup('%', 'names', affects => 'select s.id from src s join names using (n)')";
    for (shape, query, key, options, then) in [
        ("rows", "select id, upper(body) as body, n from src", "{id}", "", ""),
        ("two", "select id, body from src", "{id}", "", more),
        ("ordered", "select id, body from src", "{id}", ", ordinal => 'stamp'", ""),
        ("named", "select s.id, m.name from src s left join names m using (n)", "{id}", "", named),
        ("none", "select id, body from src where id < 0", "{id}", "", ""),
        (
            "pieces",
            "select id, k, substr(body, 1, 40) || k as piece from src, generate_series(1, n % 4) as k",
            "{id,k}",
            "",
            "",
        ),
        (
            "groups",
            "select n, count(*) as many, string_agg(body, ',' order by id) as bodies from src group by n",
            "{n}",
            ", source_key => '{n}'",
            "",
        ),
        (
            "own",
            "select id, body from src",
            "{id}",
            ", fingerprint => 'coco.normalize_text(body)'",
            "",
        ),
        // Planned over all of the source, with these joins and this subquery.
        ("rightly", "select s.id, m.name from names m right join src s using (n)", "{id}", "", ""),
        (
            "joined",
            "select x.id, x.up, m.name from names m
               join (select id, n, upper(body) as up from src) x using (n) where x.up is not null",
            "{id}",
            "",
            "",
        ),
        // Over all of it these would be something else than over each item.
        (
            "kept",
            "select s.id, m.name from names m left join src s using (n) where s.id is not null",
            "{id}",
            "",
            "",
        ),
        ("counted", "select id, (select count(*) from src) as many from src", "{id}", "", ""),
        ("twice", "select a.id, b.id as other from src a join src b on a.n = b.n", "{id}", "", ""),
        ("numbered", "select id, row_number() over (order by id) as no from src", "{id}", "", ""),
        ("limited", "select id, body from src limit 1", "{id}", "", ""),
        ("firsts", "select distinct on (n) id, n from src order by n, id", "{id}", "", ""),
        ("sums", "select id, sum(n) over () as n from src group by id, src.n", "{id}", "", ""),
    ] {
        let declare = |flow: &str| {
            format!(
                "select coco.create_flow('{flow}', 'src', $q${query}$q$, '{flow}', '{key}'{options}); {}",
                then.replace('%', flow)
            )
        };
        let batched = format!("{shape}_batched");
        db.run(&declare(shape));
        // A trigger wants more than rows and index entries: batch by batch.
        let tables: Vec<String> = match then == more {
            true => vec![shape.to_owned(), format!("{shape}_more")],
            false => vec![shape.to_owned()],
        };
        for table in &tables {
            let other = table.replacen(shape, &batched, 1);
            db.run(&format!(
                "create table {other} (like {table} including all);
                 create trigger quiet before insert on {other} for each row execute function quiet()"
            ));
        }
        db.run(&declare(&batched));
        let (filled, beside) = (once(&mut db.client, shape), once(&mut db.client, &batched));
        assert_eq!(filled, beside, "{shape}");
        assert!(filled.evaluated >= 40, "{shape}: {filled:?}");
        assert!(is_filled(&mut db.client, shape), "{shape}");
        assert!(!is_filled(&mut db.client, &batched), "{shape}");
        for table in &tables {
            let other = table.replacen(shape, &batched, 1);
            let differ = format!(
                "select count(*) from ((select * from {table} except all select * from {other})
                  union all (select * from {other} except all select * from {table})) x"
            );
            assert_eq!(number(&mut db.client, &differ), 0, "{table}");
        }
        let tracked = [shape, &batched].map(|flow| {
            let table = tracking(&mut db.client, flow);
            let sql = format!(
                "select string_agg(concat_ws('|', k1, source_ordinal, content_fingerprint, target_keys,
                                             memo_refs, failure), ' ' order by k1) from {table}"
            );
            text(&mut db.client, &sql)
        });
        assert_eq!(tracked[0], tracked[1], "{shape}");
        check_indexes(&mut db.client, shape);
        db.verify_clean(shape);
        // From there on it is one as any other.
        db.run("update src set body = 'new', stamp = '2030-01-01' where id in (3, 7); delete from src where id = 5");
        assert_eq!(once(&mut db.client, shape), once(&mut db.client, &batched), "{shape}");
        db.verify_clean(shape);
        db.run("insert into src values (5, 5, 'back', '2030-01-01')");
        db.run(&format!(
            "select coco.drop_flow('{shape}', keep_targets => false); select coco.drop_flow('{batched}', keep_targets => false)"
        ));
    }
}

#[test]
fn indexes_of_the_users_are_filled_too() {
    let mut db = TestDb::new("fill_indexes");
    db.run(SOURCE);
    db.run(
        "select coco.create_flow('f', 'src', 'select id, n, body from src', 't', '{id}');
         create index on t (upper(left(body, 40))) where n > 3; create unique index on t (n, id) where length(body) < 100;
         create index on t using hash (body); create index on t using gin (to_tsvector('simple', body)); create index on t using brin (id)",
    );
    let (before, tracked) = (files(&mut db.client, "t"), tracking(&mut db.client, "f"));
    let tracked_before = files(&mut db.client, &tracked);
    assert_eq!(once(&mut db.client, "f").upserted, ITEMS);
    assert!(is_filled(&mut db.client, "f"));
    // Built anew, each of them.
    let (after, tracked_after) = (files(&mut db.client, "t"), files(&mut db.client, &tracked));
    assert!(before.split(',').zip(after.split(',')).all(|(a, b)| a != b), "{before} {after}");
    assert_ne!(tracked_before, tracked_after);
    check_indexes(&mut db.client, "f");
    db.run("set enable_seqscan = off");
    for (condition, index) in [
        ("upper(left(body, 40)) = upper(md5('77')) and n > 3", "upper"),
        ("body = md5('77')", "body"),
        ("to_tsvector('simple', body) @@ to_tsquery('simple', md5('77'))", "tsvector"),
        ("id = 77", "id"),
    ] {
        let sql = format!("select count(*) from t where {condition}");
        let plan = db.client.query(&format!("explain {sql}"), &[]).expect("a plan");
        let plan: Vec<String> = plan.iter().map(|r| r.get(0)).collect();
        assert!(plan.iter().any(|l| l.contains("Index")), "{index}: {}", plan.join("\n"));
        assert_eq!(number(&mut db.client, &sql), 1, "{index}");
    }
    db.verify_clean("f");
}

#[test]
fn a_fill_goes_with_its_transaction() {
    let mut db = TestDb::new("fill_transaction");
    db.run(SOURCE);
    db.run("select coco.create_flow('f', 'src', 'select id, n, body from src', 't', '{id}')");
    let mut reader = db.connect();
    let mut session = db.connect();
    let before = files(&mut session, "t");
    for (begin, end) in [("begin", "rollback"), ("begin; savepoint s", "rollback to s; commit")] {
        session.batch_execute(begin).expect("a transaction begins");
        assert_eq!(once(&mut session, "f").upserted, ITEMS);
        // Nobody is kept from reading by a transaction that stays open.
        reader.batch_execute("set statement_timeout = '60s'").expect("it is set");
        assert_eq!(number(&mut reader, "select count(*) from t"), 0);
        assert_eq!(number(&mut reader, "select count(*) from coco.tracking"), 0);
        session.batch_execute(end).expect("it ends");
        assert_eq!(number(&mut session, "select count(*) from t"), 0);
        check_indexes(&mut session, "f");
    }
    assert_eq!(files(&mut session, "t"), before);
    // Of a statement that fails after it, nothing stays either.
    let fails = "select count(*) / 0 from coco.update('f')";
    assert!(session.query(fails, &[]).is_err());
    assert_eq!(files(&mut session, "t"), before);
    check_indexes(&mut session, "f");
    // What nobody else sees yet is built at once.
    session
        .batch_execute(
            "begin; select coco.create_flow('g', 'src', 'select id, n from src', 'u', '{id}')",
        )
        .expect("a flow");
    let new = files(&mut session, "u");
    assert_eq!(once(&mut session, "g").upserted, ITEMS);
    assert_ne!(files(&mut session, "u"), new);
    session.batch_execute("commit").expect("it commits");
    assert_eq!(once(&mut session, "f").upserted, ITEMS);
    for flow in ["f", "g"] {
        assert!(is_filled(&mut session, flow));
        check_indexes(&mut session, flow);
        db.verify_clean(flow);
    }
}

#[test]
fn a_fill_waits_for_no_reader() {
    let mut db = TestDb::new("fill_readers");
    db.run(SOURCE);
    db.run("select coco.create_flow('f', 'src', 'select id, n, body from src', 't', '{id}')");
    let before = files(&mut db.client, "t");
    let mut reader = db.connect();
    reader.batch_execute("begin; set transaction isolation level repeatable read").expect("begins");
    assert_eq!(number(&mut reader, "select count(*) from t where id = 77"), 0);
    // The reader keeps its locks: entries are written one by one.
    assert_eq!(once(&mut db.client, "f").upserted, ITEMS);
    assert!(is_filled(&mut db.client, "f"));
    assert_eq!(files(&mut db.client, "t"), before);
    assert_eq!(number(&mut reader, "select count(*) from t where id = 77"), 0);
    reader.batch_execute("commit").expect("it commits");
    assert_eq!(number(&mut reader, "select count(*) from t where id = 77"), 1);
    check_indexes(&mut db.client, "f");
    // So they are where the statement itself has the index open.
    db.run("select coco.create_flow('g', 'src', 'select id, n from src', 'u', '{id}'); set enable_seqscan = off");
    let before = files(&mut db.client, "u");
    let beside = "select count(u.id) from coco.update('g') as x left join u on u.id = x.seen";
    number(&mut db.client, beside);
    assert!(is_filled(&mut db.client, "g"));
    assert_eq!(files(&mut db.client, "u"), before);
    check_indexes(&mut db.client, "g");
    db.verify_clean("g");
}

#[test]
fn columns_that_the_query_does_not_give_are_null_unless_their_type_forbids_it() {
    let mut db = TestDb::new("fill_more_columns");
    db.run(SOURCE);
    db.run(
        "create domain present as int check (value is not null);
         create table wide (note text, id int primary key, n int, at timestamptz, other bigint);
         create table wider (id int primary key, extra present, n int);
         create table guarded (id int primary key, n int, who text);
         alter table guarded enable row level security;
         create policy nobody on guarded using (false) with check (false)",
    );
    for target in ["wide", "guarded"] {
        db.run(&format!("select coco.create_flow('{target}', 'src', 'select n, id from src', '{target}', '{{id}}')"));
        let counts = once(&mut db.client, target);
        assert_eq!((counts.upserted, counts.failed), (ITEMS, 0), "{target}: {counts:?}");
        assert!(is_filled(&mut db.client, target), "{target}");
        db.verify_clean(target);
    }
    let nulls = "select count(*) from wide where note is null and at is null and other is null and n = id % 40";
    assert_eq!(number(&mut db.client, nulls), ITEMS);
    db.run("select coco.create_flow('wider', 'src', 'select n, id from src', 'wider', '{id}')");
    let counts = once(&mut db.client, "wider");
    assert_eq!((counts.upserted, counts.failed), (0, ITEMS), "the domain has no NULL: {counts:?}");
    assert_eq!(number(&mut db.client, "select count(*) from wider"), 0);
}

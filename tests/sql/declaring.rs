//! Declaring: what is refused, in which words, and what is accepted with a warning.

use crate::support;

use std::sync::{Arc, Mutex};

use support::TestDb;

/// SQLSTATE and message of the error a statement raises; with a hint where one is asked for.
fn refused(db: &mut TestDb, sql: &str) -> (String, String, String) {
    let error = match db.client.batch_execute(sql) {
        Ok(()) => panic!("this was accepted: {sql}"),
        Err(e) => e,
    };
    let e = error.as_db_error().unwrap_or_else(|| panic!("no error of the server: {error}"));
    let rest = format!("{} {}", e.detail().unwrap_or(""), e.hint().unwrap_or(""));
    (e.code().code().to_owned(), e.message().to_owned(), rest)
}

#[track_caller]
fn assert_refused(db: &mut TestDb, sql: &str, sqlstate: &str, message: &str, rest: &str) {
    let (code, said, more) = refused(db, sql);
    assert_eq!(code, sqlstate, "{sql}: {said}");
    assert!(said.contains(message), "{sql}: {said}, not: {message}");
    assert!(more.contains(rest), "{sql}: {more}, not: {rest}");
    let left: i64 = db.client.query_one("select count(*) from coco.flows", &[]).unwrap().get(0);
    assert_eq!(left, 0, "{sql}: nothing of a refused flow stays");
}

#[test]
fn what_cannot_be_kept_is_refused_with_the_reason_and_the_mend() {
    let mut db = TestDb::new("refused");
    db.run(
        "create temp table tmp (id int primary key);
         create table d (id int primary key, g int not null, body text, point point);
         create table nopk (a int, b text);
         create table bad_target (id int, z int not null);
         create table no_index (id int not null, body text);
         create view some_view as select 1 as id;
         create sequence seq",
    );
    let flow = |query: &str, rest: &str| {
        format!("select coco.create_flow('x', 'd', $q${query}$q$, {rest})")
    };
    let cases = [
        (flow("select 1; select 2", "'t', '{a}'"), "42601", "must be exactly one SELECT", "2 statements"),
        (flow("delete from d", "'t', '{a}'"), "42601", "must be exactly one SELECT", "not a SELECT"),
        (flow("", "'t', '{a}'"), "42601", "must be exactly one SELECT", "empty"),
        (flow("selec id from d", "'t', '{a}'"), "42601", "must be exactly one SELECT", "syntax error"),
        (flow("select id from d) q, (select 1", "'t', '{id}'"), "42601", "exactly one SELECT", "syntax error"),
        (flow("select id from d for update", "'t', '{id}'"), "42601", "exactly one SELECT", "locks rows"),
        (flow("select id into z from d", "'t', '{id}'"), "42601", "exactly one SELECT", "INTO"),
        (flow("select id from d where id = $1", "'t', '{id}'"), "42P02", "argument \"query\": there is no parameter $1", ""),
        (flow("select id, nosuch from d", "'t', '{id}'"), "42703", "column \"nosuch\" does not exist", ""),
        (flow("select id from d", "'t', '{nokey}'"), "42703", "key column \"nokey\" is not in the query's output", "returns: id"),
        (flow("select id, point from d", "'t', '{point}'"), "42804", "key column \"point\" has type point, which has no order", "btree"),
        (flow("select id from d", "'t', '{}'"), "22023", "argument \"key\" is empty", "Specify the columns"),
        (flow("select id, 1 from d", "'t', '{id}'"), "42611", "a column without a name", "AS name"),
        (flow("select id, body as id from d", "'t', '{id}'"), "42701", "two columns named \"id\"", "AS name"),
        (flow("select 1 as id", "'t', '{id}'"), "22023", "does not read source \"d\"", "Read it as d"),
        (flow("select a.id from public.d a, public.d b", "'t', '{id}'"), "42P09", "reads source \"d\" in several places", "the argument \"item\""),
        (flow("select id from d", "'t', '{id}', item => 'b'"), "22023", "under the alias \"b\"", "The query reads the source as: d."),
        (flow("select a.id from public.d a", "'t', '{id}', item => 'b'"), "22023", "under the alias \"b\"", "The query reads the source as: a."),
        (flow("select id from only d", "'t', '{id}'"), "0A000", "reads the source d with ONLY", "over a view"),
        (flow("select id from d tablesample system (10)", "'t', '{id}'"), "0A000", "with TABLESAMPLE", "over a view"),
        (flow("select id, xmin::text as v from d", "'t', '{id}'"), "0A000", "the system column xmin", "over a view"),
        (flow("select id from d", "'t', '{id}', ordinal => 'xmin::text::bigint'"), "0A000", "argument \"ordinal\" reads the system column xmin", ""),
        (flow("with w as (delete from nopk returning a) select id from d, w", "'t', '{id}'"), "0A000", "writes in a WITH clause", "only reads"),
        (flow("select id from (select id from d for update) x", "'t', '{id}'"), "0A000", "locks rows", "only reads"),
        (flow("with d as (select 1 as id) select id from d", "'t', '{id}'"), "22023", "does not read source \"d\"", ""),
        (flow("select id from d", "'t', '{id}', fingerprint => '(select max(g) from d)'"), "0A000", "reads the source in a subquery", ""),
        (flow("select id from d", &format!("'{}', '{{id}}'", "y".repeat(64))), "42622", "over 63 bytes", ""),
        (flow("select id from d", "'nosuch.t', '{id}'"), "3F000", "schema \"nosuch\" does not exist", ""),
        (flow("select id from d", "'elsewhere.public.t', '{id}'"), "0A000", "cross-database references are not implemented: elsewhere.public.t", "this database"),
        (flow("select id from d", "'a.b.public.t', '{id}'"), "22023", "a.b.public.t is not a table name", "schema.table"),
        (flow("select id, body from d", "'bad_target', '{id}'"), "42804", "target public.bad_target does not fit", "has no column body text; Column z is not null"),
        (flow("select id, body from d", "'no_index', '{id}'"), "42P16", "no unique index on its key (id)", "ADD PRIMARY KEY (id)"),
        (flow("select id from d", "'some_view', '{id}'"), "42809", "target public.some_view is not a table", ""),
        (flow("select id from d", "'d', '{id}'"), "22023", "is a source of the same flow", ""),
        (flow("select id from d", "'t', '{id}', fingerprint => 'body), (id'"), "42601", "argument \"fingerprint\" must be one expression", ""),
        (flow("select id from d", "'t', '{id}', fingerprint => 'random()'"), "22023", "argument \"fingerprint\" calls a volatile function", ""),
        (flow("select id from d", "'t', '{id}', ordinal => 'body'"), "42804", "argument \"ordinal\" has unsupported type text", "bigint"),
        (flow("select id from d", "'t', '{id}', ordinal => 'nosuch'"), "42703", "argument \"ordinal\": column \"nosuch\"", ""),
        (flow("select id from d", "'t', '{id}', source_key => '{nosuch}'"), "42703", "key column \"nosuch\" does not exist in source", ""),
        (flow("select id, body from d", "'t', '{id}', source_key => '{g}', ordinal => 'id'"), "0A000", "argument \"ordinal\" is not supported for groups", "compares groups"),
        ("select coco.create_flow('x', 'pg_temp.tmp', 'select id from tmp', 't', '{id}')".to_owned(), "0A000", "pg_temp", "outlives the session"),
        (format!("select coco.create_flow('{}')", "x".repeat(64)), "42622", "is too long", "64 bytes"),
        ("select coco.create_flow('')".to_owned(), "22023", "argument \"flow\" is empty", ""),
        ("select coco.create_flow('x', 'd', target => 't')".to_owned(), "22023", "argument \"query\" is missing", "coco.add_target"),
        ("select coco.create_flow('x', query => 'select 1')".to_owned(), "22023", "argument \"source\" is missing", ""),
        ("select coco.create_flow('x', 'nopk', 'select a from nopk', 't', '{a}')".to_owned(), "42P16", "source public.nopk has no primary key, and no key was specified", "source_key"),
        ("select coco.create_flow('x', 'nopk', 'select a from nopk', 't', '{a}', source_key => '{a+random()}')".to_owned(), "42P17", "the expression a+random() in the source key is not immutable", "IMMUTABLE"),
        ("select coco.create_flow('x', 'seq', 'select 1 as a from seq', 't', '{a}', source_key => '{last_value}')".to_owned(), "42809", "is not a table, view", ""),
        ("select * from coco.update('nosuch')".to_owned(), "42704", "flow \"nosuch\" does not exist", "coco.flows"),
    ];
    for (sql, sqlstate, message, rest) in cases {
        assert_refused(&mut db, &sql, sqlstate, message, rest);
    }
}

#[test]
fn a_join_of_two_sources_is_refused_and_a_union_of_them_is_not() {
    let mut db = TestDb::new("two_sources");
    db.run(
        "create table a (id int primary key); create table b (id int primary key);
         select coco.create_flow('x'); select coco.add_source('x', 'a'); select coco.add_source('x', 'b')",
    );
    for query in [
        "select a.id from a join b using (id)",
        "select a.id from a, b",
        "select a.id from a where exists (select from b where b.id = a.id)",
        "select q.id from (select id from a) q join (select id from b) r using (id)",
    ] {
        let sql = format!("select coco.add_target('x', 't', '{query}', '{{id}}')");
        let (code, said, rest) = refused(&mut db, &sql);
        assert_eq!(
            (code.as_str(), said.as_str()),
            ("0A000", "argument \"query\" joins two sources"),
            "{query}"
        );
        assert!(rest.contains("UNION ALL"), "{rest}");
    }
    db.run("select coco.add_target('x', 't', 'select 1 as k, id from a union all select 2, id from b', '{k,id}')");
}

#[test]
fn a_target_belongs_to_one_flow_and_a_name_to_one_declaration() {
    let mut db = TestDb::new("taken");
    db.run("create table d (id int primary key); select coco.create_flow('x', 'd', 'select id from d', 't', '{id}')");
    let (code, said, _) =
        refused(&mut db, "select coco.create_flow('y', 'd', 'select id from d', 't', '{id}')");
    assert_eq!(
        (code.as_str(), said.as_str()),
        ("55006", "target public.t already belongs to flow \"x\"")
    );
    let (code, said, _) = refused(&mut db, "select coco.create_flow('x')");
    assert_eq!((code.as_str(), said.as_str()), ("42710", "flow \"x\" already exists"));
    db.run("select coco.create_flow('y', 'd', 'select id from d', 't2', '{id}')");
}

#[test]
fn what_will_not_be_followed_is_said() {
    let mut db = TestDb::new("warned");
    db.run(
        "create table d (id int primary key, g int not null, body text);
         create table other (id int, v text);
         create function kept(t text) returns text language sql volatile as 'select t';
         select coco.memoize('kept(text)')",
    );
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = said.clone();
    let mut client = db.connect_hearing(move |notice| heard.lock().unwrap().push(notice));
    let mut n = 0;
    let mut warnings = |query: &str, more: &str| {
        n += 1;
        let sql =
            format!("select coco.create_flow('f{n}', 'd', $q${query}$q$, 't{n}', '{{id}}'{more})");
        client.batch_execute(&sql).unwrap_or_else(|e| panic!("{sql}: {}", support::explain(&e)));
        std::mem::take(&mut *said.lock().unwrap()).join("\n")
    };
    let group = ", source_key => '{g}'";
    for (query, more, expected) in [
        (
            "select d.id, o.v from d left join other o using (id)",
            "",
            "reads public.other, which is not a source",
        ),
        ("select d.id, (select count(*) from public.d) as n from d", "", "reads public.d in full"),
        ("select id, random() as r from d", "", "volatile function random"),
        ("select id, kept(body) as k, random() as r from d", "", "volatile function random"),
        ("select id from d limit 10", "", "LIMIT or OFFSET"),
        ("select id, row_number() over (order by id) as n from d", "", "a window function"),
        ("select distinct g as id from d", "", "DISTINCT"),
        ("select g as id, count(*) as n from d group by g", "", "GROUP BY or an aggregate"),
        ("select max(g) as id, count(*) as n from d", group, "GROUP BY or an aggregate"),
        ("select id from d union select id from d", "", "UNION, INTERSECT or EXCEPT"),
    ] {
        let heard = warnings(query, more);
        assert!(heard.contains(expected), "{query}: {heard:?}");
    }
    // Results of memoized functions are kept, and stay what they are.
    let kept = "select id, kept(body) as k, coco.embed(body, 'models', 'm') as e,
      coco.generate(body, 'models', 'm') as g, coco.http_post(body, '{}') as h from d";
    assert_eq!(warnings(kept, ""), "");
    // Within an item these give the same over one and over all.
    for (query, more) in [
        ("select id, body from d", ""),
        ("select d.id, count(*) as n from d, generate_series(1, 3) group by d.id", ""),
        ("select distinct id, g from d", ""),
        (
            "select id, n from d, lateral (select n from generate_series(1, 9) n order by n limit 3) s",
            "",
        ),
        (
            "select id, row_number() over (partition by id order by w) as n from d, regexp_split_to_table(body, ' ') w",
            "",
        ),
        ("select g as id, sum(d.id) as s from d group by g", group),
        ("select id, (select max(x) from unnest(array[1, 2]) x) as m from d", ""),
    ] {
        assert_eq!(warnings(query, more), "", "{query}");
    }
}

#[test]
fn an_adopted_table_that_would_change_values_is_refused() {
    let mut db = TestDb::new("less_precision");
    db.run(
        "create table d (id int primary key, n numeric, m numeric(8,2), at timestamptz, i interval, c char(8))",
    );
    let mut adopt = |column: &str, expression: &str| {
        db.run(&format!("drop table if exists t; create table t (id int primary key, x {column})"));
        let declare = format!(
            "select coco.create_flow('x', 'd', 'select id, {expression} as x from d', 't', '{{id}}')"
        );
        match db.client.batch_execute(&declare) {
            Ok(()) => {
                db.run("select coco.drop_flow('x')");
                true
            }
            Err(e) => {
                let said = support::explain(&e);
                assert!(said.contains("writing would change values"), "{said}");
                false
            }
        }
    };
    for (column, expression) in [
        ("numeric(6,1)", "n"),
        ("numeric(12,3)", "m"),
        ("timestamptz(0)", "at"),
        ("timestamptz(3)", "at"),
        ("interval(0)", "i"),
        ("char(10)", "c"),
    ] {
        assert!(!adopt(column, expression), "{column} was adopted for {expression}");
    }
    for (column, expression) in [
        ("numeric", "n"),
        ("numeric(12,2)", "m"),
        ("numeric(6,1)", "n::numeric(6,1)"),
        ("timestamptz(6)", "at"),
        ("timestamptz(3)", "at::timestamptz(0)"),
        ("char(8)", "c"),
        ("varchar(3)", "c::varchar"),
    ] {
        assert!(adopt(column, expression), "{column} was refused for {expression}");
    }
}

#[test]
fn a_key_that_is_or_becomes_no_key_is_refused() {
    let mut db = TestDb::new("no_key");
    let version: i32 = db
        .client
        .query_one("select current_setting('server_version_num')::int", &[])
        .expect("it says so")
        .get(0);
    if version >= 180000 {
        db.run(
            "create table v (a int, b text, unique (a)); insert into v values (null, 'x');
             alter table v add constraint a_nn not null a not valid",
        );
        // The constraint proves nothing: NULL is a group like any other.
        db.run(
            "select coco.create_flow('v', 'v', 'select a, b from v', 'vt', '{a}', source_key => '{a}');
             select coco.update('v')",
        );
        let count = "select count(*) from vt where a is null and b = 'x'";
        assert_eq!(db.client.query_one(count, &[]).expect("it reads").get::<_, i64>(0), 1);
    }
    // An index that compares in another way than the column: two rows that are equal can be there.
    let collation =
        "create collation ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
    if db.client.batch_execute(collation).is_ok() {
        db.run(
            "create table u (email text collate ci not null, n int); create unique index on u (email collate \"C\");
             insert into u values ('a', 1), ('A', 2);
             select coco.create_flow('u', 'u', 'select email, sum(n) as n from u group by email', 'ut', '{email}', source_key => '{email}');
             select coco.update('u')",
        );
        let sum = "select sum(n)::bigint from ut";
        assert_eq!(db.client.query_one(sum, &[]).expect("it reads").get::<_, i64>(0), 3);
    }

    db.run(
        "create table d (id int, n int not null, primary key (id)); insert into d values (1, 1);
         select coco.create_flow('f', 'd', 'select id, n from d', 'ft', '{id}'); select coco.update('f');
         alter table d drop constraint d_pkey; alter table d add primary key (id, n); insert into d values (1, 2)",
    );
    let error = db.client.batch_execute("select coco.update('f')").expect_err("no key");
    let said = support::explain(&error);
    assert!(
        said.contains("the key (id) of source \"d\" of flow \"f\" is no longer unique (55000)"),
        "{said}"
    );
    db.run("delete from d where n = 1; create unique index on d (id); select coco.update('f')");
    let n: i32 = db.client.query_one("select n from ft", &[]).expect("it reads").get(0);
    assert_eq!(n, 2);

    db.run("alter table ft alter n type text");
    let error = db.client.batch_execute("select coco.update('f')").expect_err("another type");
    let said = support::explain(&error);
    assert!(
        said.contains("target public.ft of flow \"f\" has another type for column \"n\" (42804)"),
        "{said}"
    );
    db.run("select coco.set_query('f', null, 'select id, n from d'); select coco.update('f')");
    db.verify_clean("f");
}

/// A flow that another session drops, or declares anew, while its lock is waited for.
#[test]
fn a_flow_may_be_dropped_while_others_wait_for_it() {
    let mut db = TestDb::new("dropped_meanwhile");
    db.run("create table d (id int primary key, v int)");
    const DECLARE: &str = "select coco.create_flow('f', 'd', 'select id, v from d', 'f_t', '{id}')";
    for call in [
        "select coco.drop_flow('f')",
        "select coco.set_query('f', null, 'select id, v + 1 as v from d')",
        "select coco.alter_flow('f', paused => true)",
        "select coco.update('f')",
        "select coco.start('f')",
        "select coco.stop('f')",
    ] {
        for anew in [false, true] {
            db.run(DECLARE);
            let mut first = db.connect();
            first.batch_execute("begin; select coco.drop_flow('f')").expect("dropped");
            if anew {
                first.batch_execute(DECLARE).expect("declared");
            }
            let mut second = db.connect();
            let waiting = std::thread::spawn(move || second.batch_execute(call));
            let waits = "select count(*) from pg_locks
               where not granted and database = (select oid from pg_database where datname = current_database())";
            while db.client.query_one(waits, &[]).expect("locks").get::<_, i64>(0) == 0 {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            first.batch_execute("commit").expect("committed");
            let ended = waiting.join().expect("no panic");
            let code = ended.as_ref().err().and_then(|e| e.code().map(|c| c.code().to_owned()));
            // One that waits for the flow that was dropped may say that it is gone; which is stopped then, too.
            let gone = code.as_deref() == Some("42704");
            let done = ended.is_ok() && (anew || call.contains("stop"));
            assert!(gone || done, "{call}, {anew}: {ended:?}");
            if let Err(e) = db.client.batch_execute("select coco.drop_flow('f')") {
                assert_eq!(e.code().map(|c| c.code()), Some("42704"), "{call}: {e:?}");
            }
        }
    }
}

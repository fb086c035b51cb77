//! When a result is computed: for each new input once, and again when the code differs.

use super::{calls, counting, entries, inputs, number};
use crate::support::TestDb;

#[test]
fn what_items_share_is_computed_once_and_goes_with_the_last_of_them() {
    let mut db = counting("shared");
    db.run(
        "insert into d select i, 'text ' || i % 3 from generate_series(1, 9) i;
         select coco.create_flow('f', 'd', 'select id, plain(body) as u, plain(''all'') as a from d', 't', '{id}')",
    );
    assert_eq!(db.update("f", "normal")[0].upserted, 9);
    assert_eq!((calls(&mut db), entries(&mut db)), (4, 4));
    db.run("update d set body = 'text 0'");
    assert_eq!(db.update("f", "normal")[0].evaluated, 6);
    assert_eq!((calls(&mut db), entries(&mut db)), (0, 2));
    db.run("update d set body = 'new' where id = 1");
    db.update("f", "normal");
    assert_eq!((calls(&mut db), entries(&mut db)), (1, 3));
    db.verify_clean("f");
    assert_eq!(number(&mut db, "select count(*) from coco.preview('f')"), 0);
    assert_eq!(calls(&mut db), 0, "looking computes nothing that is there");
    db.run("delete from d where id < 9");
    db.update("f", "normal");
    assert_eq!((calls(&mut db), entries(&mut db)), (0, 2));
    let uses = "select sum(uses) from coco.memo_1_f";
    assert_eq!(number(&mut db, uses), 2);
    db.run("truncate d");
    db.update("f", "normal");
    assert_eq!(entries(&mut db), 0);
    db.run("select coco.drop_flow('f')");
    let left = "select count(*) from pg_class where relname like 'memo\\_%\\_f'";
    assert_eq!(number(&mut db, left), 0);
}

#[test]
fn a_random_history_computes_each_new_input_once() {
    for function in ["plain", "many"] {
        let mut db = counting(&format!("random_{function}"));
        db.run(&format!(
            "select coco.create_flow('f', 'd', 'select d.id, w.n, {function}(w.x) as u from d,
               unnest(string_to_array(d.body, '' '')) with ordinality as w(x, n)', 't', '{{id,n}}')"
        ));
        let seed = std::env::var("COCO_TEST_SEED").ok().and_then(|s| s.parse().ok());
        let mut random: u64 = seed.unwrap_or_else(|| std::process::id().into());
        println!("COCO_TEST_SEED={random}");
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        let words = "select distinct w from d, unnest(string_to_array(body, ' ')) as w";
        db.run("create table known (w text)");
        for round in 0..60 {
            for _ in 0..1 + next(12) {
                let id = next(20);
                let body: Vec<String> = (0..next(8)).map(|_| format!("w{}", next(40))).collect();
                match next(4) {
                    0 => db.run(&format!("delete from d where id = {id}")),
                    _ => db.run(&format!(
                        "insert into d values ({id}, '{}') on conflict (id) do update set body = excluded.body",
                        body.join(" ")
                    )),
                }
            }
            let new = number(
                &mut db,
                &format!("select count(*) from ({words} except select w from known) as n"),
            );
            let mode = if next(10) == 0 { "full_reprocess" } else { "normal" };
            let all = number(&mut db, &format!("select count(*) from ({words}) as n"));
            db.update("f", mode);
            let computed = if function == "plain" { calls(&mut db) } else { inputs(&mut db) };
            let expected = if mode == "normal" { new } else { all };
            assert_eq!(computed, expected, "{function}, round {round}, {mode}");
            assert_eq!(entries(&mut db), all, "{function}, round {round}");
            db.run(&format!("truncate known; insert into known {words}"));
            let listed =
                number(&mut db, "select count(*) from coco.tracking_1_f, unnest(memo_refs)");
            let uses = number(&mut db, "select coalesce(sum(uses), 0) from coco.memo_1_f");
            assert_eq!(uses, listed, "{function}, round {round}");
            if round % 10 == 9 {
                db.verify_clean("f");
            }
        }
    }
}

#[test]
fn other_code_or_another_version_computes_again() {
    let mut db = counting("logic");
    db.run(
        "insert into d select i, 'text ' || i from generate_series(1, 5) i;
         create function helper(t text) returns text language sql as 'select t || ''.''';
         create function dear(t text) returns text language plpgsql as
           $$ begin perform nextval('public.calls'); return public.helper(t); end $$;
         select coco.memoize('dear(text)', version => '1');
         select coco.create_flow('f', 'd', 'select id, dear(body) as u from d', 't', '{id}')",
    );
    db.update("f", "normal");
    assert_eq!(calls(&mut db), 5);
    db.run("select coco.set_query('f', 't', 'select id, dear(body) || ''!'' as u from d')");
    assert_eq!(db.update("f", "normal")[0].evaluated, 5);
    assert_eq!(calls(&mut db), 0, "the query alone is another");
    db.run("create or replace function helper(t text) returns text language sql as 'select t || ''?'''");
    assert_eq!(db.update("f", "normal")[0].upserted, 5);
    assert_eq!((calls(&mut db), entries(&mut db)), (5, 5));
    db.run("select coco.memoize('dear(text)', version => '2')");
    assert_eq!(db.update("f", "normal")[0].evaluated, 5);
    assert_eq!((calls(&mut db), entries(&mut db)), (5, 5));
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    db.run("select coco.unmemoize('dear(text)')");
    assert_eq!(db.update("f", "normal")[0].evaluated, 5);
    assert_eq!((calls(&mut db), entries(&mut db)), (5, 0));
    db.verify_clean("f");
}

#[test]
fn an_input_of_the_same_fingerprint_is_not_the_same_input() {
    let mut db = counting("collision");
    db.run(
        "insert into d values (1, 'one');
         select coco.create_flow('f', 'd', 'select id, plain(body) as u from d', 't', '{id}')",
    );
    db.update("f", "normal");
    // As if another input had had the fingerprint of this one.
    db.run("update coco.memo_1_f set input = input || 'x'; insert into d values (2, 'one')");
    db.update("f", "normal");
    assert_eq!(number(&mut db, "select count(*) from t where u = 'ONE'"), 2);
    assert_eq!(calls(&mut db), 2);
    db.verify_clean("f");
}

#[test]
fn results_that_rest_on_each_other_are_asked_for_one_after_the_other() {
    for (n, query) in [
        "select id, many(many(body) || '!') as u from d",
        "select s.id, many(coalesce(s.x, 'nothing yet') || '!') as u
           from (select id, many(body) as x from d) as s",
        "with s as materialized (select id, many(body) as x from d)
         select id, many(coalesce(x, 'nothing yet') || '!') as u from s",
        "select d.id, many(coalesce(m, 'nothing yet') || '!') as u from d, many(d.body) as m",
        "select id, (select many(coalesce(m, 'nothing yet') || '!') from many(d.body) as m) as u from d",
    ]
    .iter()
    .enumerate()
    {
        let mut db = counting(&format!("nested_{n}"));
        db.run(&format!(
            "insert into d select i, 'text ' || i from generate_series(1, 7) i;
             select coco.create_flow('f', 'd', $q$ {query} $q$, 't', '{{id}}')"
        ));
        let c = &db.update("f", "normal")[0];
        assert_eq!((c.upserted, c.failed), (7, 0), "{query}");
        let right = "select count(*) from t join d using (id) where u = upper(body) || '!'";
        assert_eq!(number(&mut db, right), 7, "{query}");
        assert_eq!((inputs(&mut db), calls(&mut db)), (14, 2), "{query}");
        db.verify_clean("f");
        assert_eq!(entries(&mut db), 14, "{query}");
    }
}

#[test]
fn to_reprocess_in_full_computes_again_and_to_forget_does_when_evaluated() {
    let mut db = counting("reprocess");
    db.run(
        "insert into d select i, 'text ' || i % 4 from generate_series(1, 8) i;
         select coco.create_flow('f', 'd', 'select id, plain(body) as u, many(body) as m from d', 't', '{id}')",
    );
    db.update("f", "normal");
    assert_eq!((calls(&mut db), inputs(&mut db)), (5, 4));
    db.run("set coco.batch_size = 3");
    let c = &db.update("f", "full_reprocess")[0];
    assert_eq!((c.evaluated, c.upserted), (8, 0), "{c:?}");
    assert_eq!(inputs(&mut db), 4, "what it has computed itself it takes");
    assert_eq!(entries(&mut db), 8);
    calls(&mut db);
    db.update("f", "reexport");
    assert_eq!((calls(&mut db), inputs(&mut db)), (0, 0));
    assert_eq!(number(&mut db, "select coco.clear_memo('f', 'many(text)')"), 4);
    assert_eq!(entries(&mut db), 4);
    assert_eq!(db.update("f", "normal")[0].evaluated, 0);
    db.update("f", "reexport");
    assert_eq!(inputs(&mut db), 4);
    db.verify_clean("f");
    assert_eq!(number(&mut db, "select coco.clear_memo('f')"), 8);
}

#[test]
fn what_a_view_calls_is_memoized_and_groups_several_targets_and_sources_are_fine() {
    let mut db = counting("shapes");
    db.run(
        "create table words (w text primary key, kind text not null);
         insert into words select 'w' || i, 'k' || i % 3 from generate_series(1, 12) i;
         create view loud as select w, kind, many(w) as u from words;
         create table e (id int primary key, body text);
         insert into d select i, 'w' || i from generate_series(1, 6) i;
         insert into e select i, 'w' || (i + 3) from generate_series(1, 6) i;
         -- a view that the query reads
         select coco.create_flow('viewed', 'd', 'select d.id, l.u from d join loud as l on l.w = d.body', 't1', '{id}');
         -- a group
         select coco.create_flow('grouped', 'words', 'select kind, many(string_agg(w, '','' order by w)) as u from words group by kind',
           't2', '{kind}', source_key => '{kind}');
         -- two targets of one flow, over two sources
         select coco.create_flow('both');
         select coco.add_source('both', 'd'); select coco.add_source('both', 'e');
         select coco.add_target('both', 't3', 'select ''d'' as s, id, many(body) as u from d union all select ''e'', id, many(body) from e', '{s,id}');
         select coco.add_target('both', 't4', 'select ''d'' as s, id, many(body || ''!'') as u, many(body) as v from d
                                               union all select ''e'', id, many(body || ''!''), many(body) from e', '{s,id}')",
    );
    // The last flow reuses what the first one has computed.
    for (flow, expected, entries) in [("viewed", 6, 6), ("grouped", 3, 3), ("both", 12, 18)] {
        db.update(flow, "normal");
        assert_eq!(inputs(&mut db), expected, "{flow}");
        let kept = format!("select sum(entries) from coco.functions where flow = '{flow}'");
        assert_eq!(number(&mut db, &kept), entries, "{flow}");
        db.verify_clean(flow);
        let c = db.update(flow, "reexport");
        assert_eq!(c.iter().map(|c| c.failed).sum::<i64>(), 0);
        assert_eq!(inputs(&mut db), 0, "{flow}");
    }
    db.run("update words set kind = 'k1' where w = 'w3'; delete from e where id > 3; update d set body = 'w12' where id = 1");
    for (flow, expected) in [("viewed", 1), ("grouped", 2), ("both", 1)] {
        db.update(flow, "normal");
        assert_eq!(inputs(&mut db), expected, "{flow}");
        db.verify_clean(flow);
    }
    let right = "select count(*) from (select w from (values ('w12'), ('w2'), ('w3'), ('w4'), ('w5'), ('w6')) as v(w)) as d";
    assert_eq!(
        number(&mut db, "select sum(entries) from coco.functions where flow = 'both'"),
        2 * number(&mut db, right)
    );
}

#[test]
fn a_restored_flow_has_its_results() {
    let mut db = counting("dumped");
    db.run(
        "insert into d select i, 'text ' || i from generate_series(1, 30) i;
         select coco.create_flow('f', 'd', 'select id, many(body) as u, plain(body) as p from d', 't', '{id}')",
    );
    db.update("f", "normal");
    let restored = TestDb::new("memo_restored");
    let bin = std::env::var("COCO_TEST_PG_BIN").expect("COCO_TEST_PG_BIN");
    let mut restored = restored;
    restored.run("drop extension coco cascade");
    let piped = format!(
        "{bin}/pg_dump '{}' | {bin}/psql -qX -v ON_ERROR_STOP=1 '{}' > /dev/null",
        db.url(),
        restored.url()
    );
    let status = std::process::Command::new("sh").args(["-c", &piped]).status().expect("sh");
    assert!(status.success());
    restored.run("select setval('calls', 1, false); select setval('inputs', 1, false)");
    assert_eq!(restored.update("f", "normal")[0].evaluated, 0);
    assert_eq!(restored.update("f", "reexport")[0].upserted, 30);
    assert_eq!((calls(&mut restored), inputs(&mut restored)), (0, 0));
    restored.run("update d set body = 'new' where id = 1");
    restored.update("f", "normal");
    assert_eq!((inputs(&mut restored), entries(&mut restored)), (1, 60));
    restored.verify_clean("f");
}

//! Functions over the network inside flows: what a provider is asked, and what becomes of its faults.
#![cfg(feature = "functions")]

use crate::{provider, support};

use std::time::Duration;

use provider::{Fault, Provider, vector};
use support::server::{Server, Session, comes, until};
use support::{TestDb, explain};

/// A database with documents, a provider, and a flow that embeds their paragraphs.
struct Search {
    db: TestDb,
    provider: Provider,
}

const QUERY: &str = "select d.id, p.n, p.text, coco.embed(p.text, 'models', 'm') as e
  from docs d, unnest(string_to_array(d.body, '|')) with ordinality as p(text, n)";

impl Search {
    fn new(name: &str, options: &str) -> Search {
        let mut db = TestDb::new(&format!("provided_{name}"));
        let provider = Provider::start();
        db.run(&format!(
            "create server models foreign data wrapper coco_openai
               options (url '{}', batch_size '16', concurrency '4'{options});
             create table docs (id int primary key, body text);
             select coco.create_flow('f', 'docs', $q$ {QUERY} $q$, 't', '{{id,n}}')",
            provider.url()
        ));
        Search { db, provider }
    }

    /// Documents of ten paragraphs each.
    fn fill(&mut self, count: i32) {
        self.db.run(&format!(
            "insert into docs select i, (select string_agg('paragraph ' || i || '.' || j, '|') from generate_series(1, 10) j)
               from generate_series(1, {count}) i"
        ));
    }

    fn number(&mut self, sql: &str) -> i64 {
        let row = self.db.client.query_one(&format!("select ({sql})::bigint"), &[]);
        row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
    }

    fn fails(&mut self) -> String {
        match support::update(&mut self.db.client, "f", "normal") {
            Ok(counts) => panic!("it does not fail: {counts:?}"),
            Err(e) => explain(&e),
        }
    }

    /// Every row has the vector of its text, and the target is what its query says.
    fn right(&mut self) {
        let rows = self.db.client.query("select text, e from t", &[]).expect("rows");
        for row in rows {
            let (text, e): (String, Vec<f32>) = (row.get(0), row.get(1));
            assert_eq!(e, vector(&text, e.len()), "{text}");
        }
        let before = self.provider.counts();
        self.db.verify_clean("f");
        assert_eq!(self.provider.counts(), before, "looking asks for nothing");
    }
}

#[test]
fn an_edit_of_a_paragraph_costs_one_embedding() {
    let mut s = Search::new("edit", "");
    s.fill(20);
    assert_eq!(s.db.update("f", "normal")[0].upserted, 200);
    let c = s.provider.counts();
    assert_eq!((c.inputs, c.distinct, c.requests), (200, 200, 13), "{c:?}");
    s.right();
    s.provider.forget();
    s.db.run("update docs set body = replace(body, 'paragraph 7.3|', 'another|') where id = 7");
    let c = &s.db.update("f", "normal")[0];
    assert_eq!((c.evaluated, c.upserted), (1, 1), "{c:?}");
    let c = s.provider.counts();
    assert_eq!((c.inputs, c.requests), (1, 1), "{c:?}");
    // What other documents have said already costs nothing.
    s.db.run("insert into docs select 100, body from docs where id = 3; update docs set body = body || '|another' where id = 9");
    s.db.update("f", "normal");
    assert_eq!(s.provider.counts().inputs, 1);
    assert_eq!(s.number("select sum(entries) from coco.functions"), 200);
    s.db.run("delete from docs where id > 1");
    s.db.update("f", "normal");
    assert_eq!(s.number("select sum(entries) from coco.functions"), 10);
    s.right();
}

#[test]
fn into_a_vector_and_of_a_summary() {
    let mut s = Search::new("nested", "");
    s.provider.always(Some(Fault::Choice(serde_json::json!({
        "index": 0, "finish_reason": "stop",
        "message": { "role": "assistant", "content": "A summary." }
    }))));
    s.db.run(
        "create extension vector;
         insert into docs select i, 'text ' || i from generate_series(1, 30) i;
         select coco.create_flow('s', 'docs', $$
           select id, coco.generate('Summarize: ' || body, 'models', 'g') as summary,
                  coco.embed(coco.generate('Summarize: ' || body, 'models', 'g'), 'models', 'm')::vector(8) as e
             from docs $$, 'summaries', '{id}')",
    );
    let c = &s.db.update("s", "normal")[0];
    assert_eq!((c.upserted, c.failed), (30, 0), "{c:?}");
    let c = s.provider.counts();
    assert_eq!((c.inputs, c.distinct), (31, 31), "thirty prompts, and one summary: {c:?}");
    assert_eq!(s.number("select count(*) from summaries where vector_dims(e) = 8"), 30);
    s.db.verify_clean("s");
    // A dimension that does not fit is the data's fault, and costs nothing more.
    s.db.run("select coco.create_flow('w', 'docs', $$ select id, coco.embed(body, 'models', 'm')::vector(9) as e from docs $$, 'w', '{id}')");
    let c = &s.db.update("w", "normal")[0];
    assert_eq!((c.failed, c.upserted), (30, 0), "{c:?}");
    s.provider.forget();
    s.db.run("select coco.set_query('w', 'w', $$ select id, coco.embed(body, 'models', 'm')::vector(8) as e from docs $$)");
    let c = &s.db.update("w", "normal")[0];
    assert_eq!((c.failed, c.upserted), (0, 30), "{c:?}");
    assert_eq!(s.provider.counts().inputs, 0, "what was paid for was kept");
}

#[test]
fn arguments_are_as_where_it_is_called_by_itself() {
    let mut s = Search::new("arguments", "");
    s.db.run(
        "insert into docs values (1, 'one'), (2, null), (3, 'three'), (4, 'four'), (5, 'five');
         select coco.create_flow('a', 'docs', $$
           select id, coco.embed(body, case when id = 3 then null else 'models' end,
                                 case when id = 4 then null else 'm' end,
                                 case when id = 5 then -1 else 8 end) as e from docs $$, 'ta', '{id}')",
    );
    let c = &s.db.update("a", "normal")[0];
    assert_eq!((c.upserted, c.failed), (2, 3), "{c:?}");
    assert_eq!(s.number("select count(*) from ta where id = 2 and e is null"), 1);
    let codes = "select count(*) from coco.errors where sqlstate in ('22004', '22023')";
    assert_eq!(s.number(codes), 3);
    assert_eq!(s.provider.counts().inputs, 1);
}

#[test]
fn a_service_of_ones_own_and_a_schema() {
    let mut s = Search::new("service", "");
    let base = s.provider.url();
    s.db.run(&format!(
        "create server own foreign data wrapper coco_http options (url '{base}/own');
         insert into docs select i, 'text ' || i % 5 from generate_series(1, 20) i;
         select coco.create_flow('p', 'docs', $$
           select id, coco.http_post('{base}/own/classify', jsonb_build_object('text', body)) as kind,
                  coco.generate(body, 'models', 'g', '{{\"type\": \"object\"}}')::jsonb as facts
             from docs $$, 'kinds', '{{id}}')"
    ));
    let c = &s.db.update("p", "normal")[0];
    assert_eq!((c.upserted, c.failed), (20, 0), "{c:?}");
    let posts = s.provider.requests().iter().filter(|r| r.path.contains("classify")).count();
    assert_eq!((posts, s.provider.counts().requests), (5, 10));
    assert_eq!(s.number("select count(*) from kinds where jsonb_typeof(facts) = 'object'"), 20);
    s.db.verify_clean("p");
    s.db.update("p", "reexport");
    assert_eq!(s.provider.counts().requests, 10);
    // A URL that is no server's is nobody's to ask.
    s.db.run("create table one (id int primary key); insert into one values (1);
              select coco.create_flow('q', 'one', $$ select id, coco.http_post('http://127.0.0.1:1/', '{}') as r from one $$, 'tq', '{id}')");
    let said = support::update(&mut s.db.client, "q", "normal").expect_err("not allowed");
    assert!(explain(&said).contains("(42501)"), "{}", explain(&said));
}

#[test]
fn faults_of_a_provider_are_tried_again_and_cost_no_answer_twice() {
    let faults: [(&str, Vec<Fault>); 8] = [
        ("429", vec![Fault::retry_after(429, "Retry-After", "0"); 3]),
        ("500", vec![Fault::status(500, "oops"); 2]),
        ("hang", vec![Fault::Hang]),
        ("count", vec![Fault::WrongCount]),
        ("dimension", vec![Fault::WrongDimension]),
        ("json", vec![Fault::InvalidJson]),
        ("cut", vec![Fault::Cut]),
        ("nan", vec![Fault::Nan, Fault::Null]),
    ];
    for (name, faults) in faults {
        let mut s = Search::new(&format!("fault_{name}"), ", request_timeout '2', max_retries '5'");
        s.fill(10);
        s.provider.after(2, faults[0].clone());
        for fault in &faults[1..] {
            s.provider.next(fault.clone());
        }
        let c = &s.db.update("f", "normal")[0];
        assert_eq!((c.upserted, c.failed), (100, 0), "{name}: {c:?}");
        assert_eq!(s.provider.counts().distinct, 100, "{name}");
        s.right();
    }
}

#[test]
fn what_was_answered_before_a_provider_went_down_is_not_asked_again() {
    let mut s = Search::new("down", ", request_timeout '2', max_retries '1'");
    s.fill(20);
    s.db.run("alter server models options (set concurrency '1')");
    s.provider.after(7, Fault::status(503, "down"));
    for _ in 0..20 {
        s.provider.next(Fault::status(503, "down"));
    }
    let said = s.fails();
    assert!(said.contains("503") && said.contains("coco keeps the responses"), "{said}");
    assert_eq!(s.number("select count(*) from t"), 0);
    let kept = s.number("select sum(entries) from coco.functions");
    assert_eq!(kept, 7 * 16, "{said}");
    s.provider.always(None);
    let mut other = s.db.connect();
    other.batch_execute("create table d2 (id int primary key); insert into d2 values (1);
        select coco.create_flow('g', 'd2', 'select id from d2', 't2', '{id}'); select coco.update('g')")
        .unwrap_or_else(|e| panic!("another flow: {}", explain(&e)));
    let still = s.provider.counts().inputs;
    until("the provider is well again", || {
        support::update(&mut s.db.client, "f", "normal").is_ok()
    });
    assert_eq!(s.number("select count(*) from t"), 200);
    assert!(s.provider.counts().distinct == 200 && still > 0);
    s.right();
}

#[test]
fn an_input_that_is_refused_fails_its_items_alone() {
    let mut s = Search::new("refused", "");
    s.fill(10);
    s.provider.refuse("paragraph 4.4");
    let c = &s.db.update("f", "normal")[0];
    // With it: paragraph 4.4 and nothing else.
    assert_eq!((c.upserted, c.failed), (90, 1), "{c:?}");
    assert_eq!(s.number("select count(*) from coco.errors where source_key = '{\"id\": 4}'"), 1);
    // The nine others of its document are kept for when it is mended.
    assert_eq!(s.number("select sum(entries) from coco.functions"), 99);
    s.provider.forget();
    s.db.run("update docs set body = replace(body, 'paragraph 4.4|', '') where id = 4");
    let c = &s.db.update("f", "normal")[0];
    assert_eq!((c.upserted, c.failed), (9, 0), "{c:?}");
    assert_eq!(s.provider.counts().inputs, 0);
    s.right();
}

#[test]
fn a_flow_pauses_at_the_spending_cap_and_goes_on_when_it_is_raised() {
    let mut s =
        Search::new("cap", ", price_per_million_input_tokens '1000000', spending_cap '150'");
    s.db.run("alter server models options (set concurrency '1')");
    s.fill(20);
    let said = s.fails();
    assert!(said.contains("(53400)") && said.contains("spending cap"), "{said}");
    let spent = s.number("select round(sum(cost)) from coco_internal.provider_usage");
    // By no more than the request that was estimated to fit still.
    assert!((1..=150 + 100).contains(&spent), "{spent}");
    let kept = s.number("select sum(entries) from coco.functions");
    assert!(kept > 0 && kept < 200, "{kept}");
    let asked = s.provider.counts().inputs;
    assert!(s.fails().contains("spending cap"));
    assert_eq!(s.provider.counts().inputs, asked, "nothing is asked beyond it");
    s.db.run("alter server models options (set spending_cap '100000')");
    s.db.update("f", "normal");
    let c = s.provider.counts();
    assert_eq!((c.distinct, c.inputs), (200, 200), "{c:?}");
    s.right();
}

#[test]
fn rights_are_those_of_the_flows_owner() {
    let mut s = Search::new("rights", "");
    s.db.run(
        "do $$ begin if exists (select from pg_roles where rolname = 'provided_user') then
           drop owned by provided_user; drop role provided_user; end if; end $$;
         create role provided_user login; grant usage on schema coco to provided_user;
         grant create on schema public to provided_user; grant select, trigger on docs to provided_user",
    );
    s.fill(1);
    let mut theirs = s.db.connect_as("provided_user");
    theirs
        .batch_execute(&format!(
            "select coco.create_flow('g', 'docs', $q$ {QUERY} $q$, 'tg', '{{id,n}}')"
        ))
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    let said = theirs.batch_execute("select coco.update('g')").expect_err("no usage");
    assert!(
        explain(&said).contains("permission denied for foreign server models"),
        "{}",
        explain(&said)
    );
    assert_eq!(s.provider.counts().requests, 0);
    s.db.run(
        "grant usage on foreign server models to provided_user;
              create user mapping for provided_user server models options (api_key 'sk-theirs')",
    );
    s.provider.want_key("sk-theirs");
    theirs.batch_execute("select coco.update('g')").unwrap_or_else(|e| panic!("{}", explain(&e)));
    assert_eq!(s.number("select count(*) from tg"), 10);
    drop(theirs);
    s.db.run("select coco.drop_flow('g'); drop owned by provided_user; drop role provided_user");
}

/// A server of its own, with live flows.
fn live(options: &str) -> (Server, Session, Provider) {
    let server = Server::preloaded(&[]);
    let mut db = server.database("live");
    let provider = Provider::start();
    db.run(&format!(
        "create server models foreign data wrapper coco_openai
           options (url '{}', request_timeout '2', max_retries '0'{options});
         create table docs (id int primary key, body text);
         create table plain (id int primary key);
         select coco.create_flow('f', 'docs', $q$ {QUERY} $q$, 't', '{{id,n}}');
         select coco.create_flow('other', 'plain', 'select id from plain', 'tp', '{{id}}');
         insert into docs values (1, 'a|b|c');
         select coco.start('f'); select coco.start('other')",
        provider.url()
    ));
    (server, db, provider)
}

#[test]
fn a_live_flow_outlives_its_provider() {
    let (server, mut db, provider) = live("");
    db.settle("f");
    assert_eq!(db.number("select count(*) from t"), 3);
    provider.always(Some(Fault::status(500, "down")));
    db.run("insert into docs values (2, 'd|e'); insert into plain values (1)");
    db.until("select exists (select from coco.status where flow = 'f' and state = 'failed' and last_error like '%500%')");
    db.settle("other");
    assert_eq!(db.number("select count(*) from tp"), 1, "another flow goes on");
    // Nobody who writes is held up.
    db.run("update docs set body = 'a|b|c|x' where id = 1");
    provider.always(None);
    assert!(comes(Duration::from_secs(120), || db.number("select count(*) from t") == 6));
    db.settle("f");
    db.verify("f");
    let c = provider.counts();
    assert_eq!(c.distinct, 6);
    db.until("select exists (select from coco.status where flow = 'f' and state = 'live')");
    drop(server);
}

#[test]
fn a_live_flow_asks_for_no_answer_twice() {
    let (server, mut db, provider) = live(", batch_size '16', concurrency '1'");
    db.settle("f");
    provider.forget();
    provider.after(2, Fault::status(500, "down"));
    db.run("insert into docs select 2, string_agg('paragraph ' || n, '|') from generate_series(1, 64) as n");
    // It fails at the third request, and is tried again.
    assert!(comes(Duration::from_secs(120), || db.number("select count(*) from t") == 67));
    db.settle("f");
    let c = provider.counts();
    assert_eq!((c.requests, c.inputs, c.distinct), (5, 64, 64), "{c:?}");
    db.verify("f");
    drop(server);
}

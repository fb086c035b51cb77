//! Functions over the network, called by themselves, against a server that counts and misbehaves;
//! and UUIDs that stay the same.
#![cfg(feature = "functions")]

use crate::{provider, scripted, support};

use std::time::Duration;

use postgres::Client;
use provider::{Fault, Provider, vector};
use scripted::Scripted;
use serde_json::{Value, json};
use support::server::{Server, until};
use support::{TestDb, explain};

const KEY: &str = "sk-a-s3cret-key";

/// A database with a provider as its server `models`.
struct Asking {
    db: TestDb,
    provider: Provider,
}

impl Asking {
    fn new(name: &str) -> Asking {
        Asking::with(name, "")
    }

    /// With these options besides the URL, each after a comma.
    fn with(name: &str, options: &str) -> Asking {
        let mut db = TestDb::new(&format!("functions_{name}"));
        let provider = Provider::start();
        db.run(&format!(
            "create server models foreign data wrapper coco_openai options (url '{}'{options})",
            provider.url()
        ));
        Asking { db, provider }
    }

    /// A value, as text.
    fn text(&mut self, sql: &str) -> Option<String> {
        let row = self.db.client.query_one(&format!("select ({sql})::text"), &[]);
        row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
    }

    fn embed(&mut self, input: &str) -> Vec<f32> {
        let row = self.db.client.query_one("select coco.embed($1, 'models', 'm')", &[&input]);
        row.unwrap_or_else(|e| panic!("{input}: {}", explain(&e))).get(0)
    }

    fn fails(&mut self, sql: &str) -> String {
        fails(&mut self.db.client, sql)
    }
}

/// All that an error says: `SQLSTATE message | detail | hint`.
fn fails(client: &mut Client, sql: &str) -> String {
    let error = client.batch_execute(sql).expect_err(sql);
    let Some(e) = error.as_db_error() else { panic!("{sql}: {error}") };
    let parts = [e.detail(), e.hint()].map(|part| part.unwrap_or("-"));
    format!("{} {} | {}", e.code().code(), e.message(), parts.join(" | "))
}

/// A role of this test's; what an earlier run has left of it is dropped.
fn role(db: &mut TestDb, name: &str) {
    db.run(&format!(
        "do $$ begin
           if exists (select from pg_roles where rolname = '{name}') then
             drop owned by {name}; drop role {name};
           end if;
         end $$;
         create role {name} login;
         grant usage on schema coco to {name}"
    ));
}

#[test]
fn a_text_is_embedded() {
    let mut asking = Asking::new("embed");
    asking
        .db
        .run(&format!("create user mapping for public server models options (api_key '{KEY}')"));
    asking.provider.want_key(KEY);
    assert_eq!(asking.embed("hello"), vector("hello", 8));
    assert_eq!(asking.text("coco.embed(null, 'models', 'm')"), None);
    let three = asking.text("array_length(coco.embed('hello', 'models', 'm', 3), 1)");
    assert_eq!(three.as_deref(), Some("3"));
    let requests = asking.provider.requests();
    assert_eq!(requests.len(), 2, "NULL is not asked for");
    assert_eq!(requests[0].path, "/v1/embeddings");
    let body: Value = serde_json::from_str(&requests[0].body).expect("JSON");
    assert_eq!(body, json!({ "model": "m", "input": ["hello"], "encoding_format": "float" }));
    let body: Value = serde_json::from_str(&requests[1].body).expect("JSON");
    assert_eq!(body["dimensions"], 3);
    assert_eq!(requests[0].headers["user-agent"], concat!("coco/", env!("CARGO_PKG_VERSION")));
    assert_eq!(requests[0].connection, requests[1].connection, "a session keeps its connection");
}

#[test]
fn text_is_generated() {
    let mut asking = Asking::with("generate", r#", parameters '{"seed": 1}'"#);
    assert_eq!(asking.text("coco.generate('hi', 'models', 'm')").as_deref(), Some("echo: hi"));
    assert_eq!(asking.text("coco.generate(null, 'models', 'm')"), None);
    let schema = r#"{"type": "object", "properties": {"said": {"type": "string"}}}"#;
    let sql = format!("coco.generate('hi \"you\"', 'models', 'm', '{schema}')::jsonb ->> 'said'");
    assert_eq!(asking.text(&sql).as_deref(), Some("hi \"you\""));
    let body: Value = serde_json::from_str(&asking.provider.requests()[0].body).expect("JSON");
    let expected = json!({ "model": "m", "temperature": 0, "seed": 1,
                           "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(body, expected);
}

#[test]
fn a_service_is_posted_to() {
    let mut asking = Asking::new("post");
    let base = asking.provider.url().replace("/v1", "");
    asking.db.run(&format!(
        "create server near foreign data wrapper coco_http options (url '{base}/a');
         create server nearer foreign data wrapper coco_http options (url '{base}/a/b', concurrency '1');
         create user mapping for current_user server nearer
           options (bearer_token 't0ken', hmac_secret 's1gned')"
    ));
    asking.provider.want_signature("s1gned");
    // No digit is lost on the way.
    let sql =
        format!("coco.http_post('{base}/a/b/c?d=e', '{{\"n\": 0.1000000000000000000000000001}}')");
    let expected = r#"{"got": {"n": 0.1000000000000000000000000001}, "path": "/a/b/c?d=e"}"#;
    assert_eq!(asking.text(&sql).as_deref(), Some(expected));
    let sent = &asking.provider.requests()[0];
    assert_eq!(sent.headers["authorization"], "Bearer t0ken");
    assert_eq!(sent.headers["idempotency-key"].len(), 32);
    assert_eq!(asking.text("coco.http_post(null, '{}')"), None);

    // The other server has no secret: it is not let in.
    let error = asking.fails(&format!("select coco.http_post('{base}/a/c', '1')"));
    assert!(error.starts_with("42501 http://127.0.0.1"), "{error}");
    let host = base.replace("127.0.0.1", "localhost");
    for url in [&format!("{base}/ab"), &base, &format!("{host}/a")] {
        let error = asking.fails(&format!("select coco.http_post('{url}', '1')"));
        assert!(error.starts_with("42501 permission denied for URL"), "{url}: {error}");
        assert!(error.contains("CREATE SERVER") && !error.contains(url), "{error}");
    }
    for path in ["/a/../c", "/a/..;/c", "/a/%2e%2e/c", "/a/%252e%252e/c"] {
        let error = asking.fails(&format!("select coco.http_post('{base}{path}', '1')"));
        assert!(error.starts_with("22023 the URL must have no"), "{path}: {error}");
    }
    let error = asking.fails("select coco.http_post('file:///etc/passwd', '1')");
    assert!(error.starts_with("22023 the URL must start with http"), "{error}");
    assert_eq!(asking.provider.counts().requests, 2);

    asking.provider.refuse("bad");
    let error = asking.fails(&format!("select coco.http_post('{base}/a/b', '\"bad\"')"));
    assert!(error.contains("422 Unprocessable Entity: not that one"), "{error}");
}

#[test]
fn options_are_checked() {
    let mut asking = Asking::new("options");
    let server = "create server s foreign data wrapper coco_openai options";
    for (sql, said) in [
        (format!("{server} (batch_size '1')"), "HV00J option \"url\" is missing"),
        (
            format!("{server} (url 'ftp://h')"),
            "HV024 option \"url\" (\"ftp://h\") must start with http",
        ),
        (format!("{server} (url 'http://h?k=1')"), "HV024"),
        (format!("{server} (url 'http://h', concurrency '0')"), "HV024 option \"concurrency\""),
        (format!("{server} (url 'http://h', spending_cap '-1')"), "HV024 option \"spending_cap\""),
        (format!("{server} (url 'http://h', requests_per_minute 'x')"), "HV024"),
        (format!("{server} (url 'http://h', parameters '{{\"model\":1}}')"), "must not have model"),
        (format!("{server} (url 'http://h', sslrootcert '/etc/ca.pem')"), "not a path"),
        (
            format!("{server} (url 'http://h', api_key 'k')"),
            "HV00D invalid option \"api_key\" of a server",
        ),
        (
            "create user mapping for public server models options (api_key 'a b
c')"
            .to_owned(),
            "HV024 option \"api_key\" must be printable",
        ),
        ("create user mapping for public server models options (password 'x')".to_owned(), "HV00D"),
        ("alter foreign data wrapper coco_openai options (add a 'b')".to_owned(), "has no options"),
    ] {
        let error = asking.fails(&sql);
        assert!(error.contains(said), "{sql}: {error}");
        assert!(!error.contains("a b\nc"), "{error}");
    }
    for (sql, said) in [
        ("select coco.embed('x', null, 'm')", "22004 argument \"server\" must not be NULL"),
        ("select coco.embed('x', 'models', null)", "22004 argument \"model\" must not be NULL"),
        ("select coco.embed('x', 'models', 'm', 0)", "22023 argument \"dimensions\" (0)"),
        (
            "select coco.embed('x', 'nowhere', 'm')",
            "42704 server \"nowhere\" does not exist | - | Create the server with CREATE SERVER … FOREIGN DATA WRAPPER coco_openai",
        ),
        ("select coco.embed('x', 'models', 'unknown')", "HV00R"),
    ] {
        let error = asking.fails(sql);
        assert!(error.starts_with(said), "{sql}: {error}");
    }
    asking.db.run("create server hook foreign data wrapper coco_http options (url 'http://h')");
    let error = asking.fails("select coco.embed('x', 'hook', 'm')");
    assert!(
        error.starts_with("42809 server \"hook\" has foreign data wrapper \"coco_http\""),
        "{error}"
    );
}

#[test]
fn usage_on_the_server_is_asked_for_at_every_call() {
    let mut asking = Asking::new("rights");
    role(&mut asking.db, "coco_asker");
    asking.db.run(&format!(
        "create user mapping for coco_asker server models options (api_key '{KEY}');
         create user mapping for public server models options (api_key 'another')"
    ));
    asking.provider.want_key(KEY);
    let mut asker = asking.db.connect_as("coco_asker");
    let sql = "select coco.embed('x', 'models', 'm')";
    let error = fails(&mut asker, sql);
    assert!(error.starts_with("42501 permission denied for foreign server models"), "{error}");
    assert!(error.contains("GRANT USAGE ON FOREIGN SERVER models"), "{error}");
    asking.db.run("grant usage on foreign server models to coco_asker");
    asker.batch_execute(sql).unwrap_or_else(|e| panic!("{}", explain(&e)));
    // Whoever has no mapping has PUBLIC's.
    let error = asking.fails(sql);
    assert!(error.starts_with("28P01"), "{error}");
    asking.db.run("revoke usage on foreign server models from coco_asker");
    let error = fails(&mut asker, sql);
    assert!(error.starts_with("42501"), "{error}");

    // With the rights of the function that calls it.
    asking.db.run(&format!(
        "create function lent() returns real[] language sql security definer as $$ {sql} $$;
         alter user mapping for public server models options (set api_key '{KEY}')"
    ));
    asker.batch_execute("select lent()").unwrap_or_else(|e| panic!("{}", explain(&e)));

    // Of the services too: what one may not use is not found.
    let base = asking.provider.url().replace("/v1", "/hook");
    asking
        .db
        .run(&format!("create server hook foreign data wrapper coco_http options (url '{base}')"));
    let error = fails(&mut asker, &format!("select coco.http_post('{base}', '1')"));
    assert!(error.starts_with("42501 permission denied for URL"), "{error}");

    // And servers are made by whom a superuser lets.
    let error = fails(
        &mut asker,
        "create server mine foreign data wrapper coco_openai options (url 'http://h')",
    );
    assert!(error.starts_with("42501"), "{error}");
    drop(asker);
    asking.db.run("drop owned by coco_asker; drop role coco_asker");
}

#[test]
fn no_message_has_a_secret() {
    let server = Server::start(&["log_statement = none", "log_min_messages = debug1"]);
    let mut sql = server.database("secrets");
    let provider = Provider::start();
    sql.run("set log_statement = none; set log_min_error_statement = panic");
    sql.run(&format!(
        "create server models foreign data wrapper coco_openai options (url '{}', max_retries '0');
         create user mapping for public server models options (api_key '{KEY}')",
        provider.url()
    ));
    provider.want_key("another");
    let wrong = fails(&mut sql.0, "select coco.embed('x', 'models', 'm')");
    assert!(wrong.starts_with("28P01 http://127.0.0.1"), "{wrong}");
    assert!(wrong.contains("The server says: Incorrect API key provided: Bearer ***"), "{wrong}");
    assert!(wrong.contains("CREATE USER MAPPING FOR … SERVER \"models\""), "{wrong}");
    assert_eq!(provider.counts().requests, 1, "a wrong key is not tried again");
    let mut all = wrong;
    for status in [400, 403, 404, 429, 500] {
        let body = json!({ "error": { "message": format!("you sent {KEY}") } });
        provider.next(Fault::status(status, &body.to_string()));
        all += &fails(&mut sql.0, "select coco.embed('x', 'models', 'm')");
    }
    all += &fails(
        &mut sql.0,
        &format!("alter user mapping for public server models options (set api_key '{KEY}\n')"),
    );
    assert!(!all.contains(KEY), "{all}");
    assert!(!server.log().contains(KEY), "the log has it");
}

#[test]
fn what_goes_wrong_once_is_not_seen() {
    let mut asking = Asking::new("once");
    for (n, fault) in [
        Fault::retry_after(429, "retry-after-ms", "10"),
        Fault::status(500, ""),
        Fault::WrongCount,
        Fault::InvalidJson,
        Fault::Cut,
        Fault::Nan,
        Fault::Null,
    ]
    .into_iter()
    .enumerate()
    {
        asking.provider.next(fault);
        let text = format!("text {n}");
        assert_eq!(asking.embed(&text), vector(&text, 8));
    }
    asking.provider.next(Fault::WrongDimension);
    asking.provider.forget();
    let eight = asking.text("array_length(coco.embed('x', 'models', 'm', 8), 1)");
    assert_eq!((eight.as_deref(), asking.provider.counts().requests), (Some("8"), 2));
}

#[test]
fn what_goes_on_is_raised() {
    let options = ", max_retries '1', request_timeout '1'";
    let mut asking = Asking::with("raised", options);
    for (fault, said) in [
        (Fault::retry_after(429, "retry-after", "0"), "53400 http://127.0.0.1"),
        (Fault::status(500, r#"{"error":"oops"}"#), "The server says: oops"),
        (Fault::Hang, "did not answer within 1 s"),
        (Fault::WrongCount, "08P01"),
        (Fault::WrongDimension, "3 dimensions, not 8"),
        (Fault::InvalidJson, "08P01"),
        (Fault::Cut, "08006"),
        (Fault::Nan, "08P01"),
        (
            Fault::Null,
            "HV000 the server answered with a vector that contains a value that is not a number",
        ),
    ] {
        asking.provider.forget();
        asking.provider.always(Some(fault.clone()));
        let error = asking.fails("select coco.embed('x', 'models', 'm', 8)");
        assert!(error.contains(said), "{fault:?}: {error}");
        assert_eq!(asking.provider.counts().requests, 2, "{fault:?}");
    }
    asking.provider.always(None);
    asking.provider.refuse("bad");
    let error = asking.fails("select coco.embed('bad', 'models', 'm')");
    assert!(error.contains("22000 http://127.0.0.1") && error.contains("is invalid"), "{error}");
    // The session is as it was.
    assert_eq!(asking.embed("good"), vector("good", 8));
}

#[test]
fn a_server_that_is_away_is_named() {
    let mut asking = Asking::with("away", ", max_retries '0'");
    asking.db.run("alter server models options (set url 'http://127.0.0.1:1/v1')");
    let error = asking.fails("select coco.embed('x', 'models', 'm')");
    assert!(error.starts_with("08001 could not connect to http://127.0.0.1:1 |"), "{error}");
}

#[test]
fn a_statement_that_is_canceled_drops_its_request() {
    let mut asking = Asking::new("cancel");
    asking.provider.always(Some(Fault::Hang));
    let error =
        asking.fails("set statement_timeout = '300ms'; select coco.embed('x', 'models', 'm')");
    assert!(error.starts_with("57014"), "{error}");
    until("the request is dropped", || asking.provider.given_up() == 1);

    // Also while it waits to ask again, and where another session says so.
    asking.db.run("set statement_timeout = 0");
    asking.provider.always(Some(Fault::retry_after(429, "retry-after", "50")));
    let mut other = asking.db.connect();
    let pid: i32 = other.query_one("select pg_backend_pid()", &[]).expect("a row").get(0);
    let asked = asking.provider.counts().requests;
    let waiting =
        std::thread::spawn(move || fails(&mut other, "select coco.generate('x', 'models', 'm')"));
    until("it is asked", || asking.provider.counts().requests > asked);
    asking.db.client.execute("select pg_cancel_backend($1)", &[&pid]).expect("canceled");
    let error = waiting.join().expect("the thread ends");
    assert!(error.starts_with("57014"), "{error}");
    asking.provider.always(None);
    assert_eq!(asking.embed("again"), vector("again", 8));
}

#[test]
fn a_session_keeps_to_a_rate() {
    let mut asking = Asking::with("rate", ", requests_per_minute '300'");
    asking.db.run("select coco.embed(n::text, 'models', 'm') from generate_series(1, 8) n");
    // Five at once, and five a second after that.
    let times = asking.provider.times();
    assert!(times[7] >= Duration::from_millis(300), "{times:?}");
}

#[test]
fn a_session_spends_no_more_than_it_may() {
    let options = ", price_per_million_input_tokens '1e6', price_per_million_output_tokens '1e6', spending_cap '25'";
    let mut asking = Asking::with("cap", options);
    // Of ten tokens each, which are taken for three before.
    for _ in 0..3 {
        asking.embed("0123456789");
    }
    for sql in ["coco.embed('x', 'models', 'm')", "coco.generate('x', 'models', 'm')"] {
        let error = asking.fails(&format!("select {sql}"));
        let expected = "53400 spending cap of server \"models\" is reached";
        assert!(error.starts_with(expected) && error.contains("ALTER SERVER"), "{error}");
    }
    assert_eq!(asking.provider.counts().requests, 3);
    asking.db.run("alter server models options (set spending_cap '1000')");
    asking.embed("x");
}

#[test]
fn an_id_is_of_types_and_values() {
    let mut db = TestDb::new("functions_uuid");
    let mut id = |arguments: &str| -> String {
        let sql = format!("select coco.stable_uuid({arguments})::text");
        db.client.query_one(&sql, &[]).unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
    };
    // What it is now it is for ever.
    assert_eq!(id("'a'::text, 1, null::text"), "5e155bd3-3202-8a30-ac12-31aa9bd6eddc");
    assert_eq!(id("'a', 1, null"), id("'a'::text, 1, null::text"), "a literal is a text");
    let all = [
        "null::text",
        "''",
        "null::int",
        "0",
        "0::bigint",
        "'0'",
        "'0'::varchar",
        "'a', 'bc'",
        "'ab', 'c'",
        "'abc'",
        "'a', null::text, 'bc'",
        "array['a', 'b']",
        "array['ab']",
        "'2026-01-01'::date",
        "row(1, 'a')",
        "row(1, null::text)",
        "1.0",
        "1.00",
        "'{}'::jsonb",
    ];
    let ids: std::collections::BTreeSet<String> = all.iter().map(|a| id(a)).collect();
    assert_eq!(ids.len(), all.len(), "all differ");
    for id in ids {
        assert_eq!(&id[14..15], "8", "{id}: the version");
        assert!("89ab".contains(&id[19..20]), "{id}: the variant");
    }
}

/// In a flow's own transaction too, until what was computed is kept.
#[test]
fn a_flow_can_call_them() {
    let mut asking = Asking::new("flow");
    asking.db.run(
        "create table docs (id int primary key, body text);
         insert into docs values (1, 'one'), (2, 'two'), (3, null);
         select coco.create_flow('vectors', source => 'docs', key => '{id}', target => 'vectors',
           query => $$ select id, coco.embed(body, 'models', 'm') as vector,
                              coco.stable_uuid(id, body) as uuid from docs $$)",
    );
    asking.db.update("vectors", "normal");
    let row = asking.db.client.query_one("select vector from vectors where id = 2", &[]);
    let stored: Vec<f32> = row.expect("a row").get(0);
    assert_eq!(stored, vector("two", 8));
    assert_eq!(asking.provider.counts().distinct, 2);
}

/// all-MiniLM-L6-v2, with the similarities that its authors show of it.
#[test]
fn a_models_vectors_tell_what_is_alike() {
    let scripted = Scripted::new("embeddings");
    let pid = std::process::id().to_string();
    let url = scripted.run("start", &["--api-key", KEY, "--while", &pid]);
    let mut db = TestDb::new("functions_model");
    db.run(&format!(
        "create server models foreign data wrapper coco_openai options (url '{url}');
         create user mapping for public server models options (api_key '{KEY}');
         create table vectors as
           select n, coco.embed(text, 'models', 'all-MiniLM-L6-v2') as v
             from (values (1, 'The weather is lovely today.'),
                          (2, 'It''s so sunny outside!'),
                          (3, 'He drove to the stadium.')) as t (n, text)"
    ));
    let mut alike = |a: i32, b: i32| -> f64 {
        let sql = "select sum(x::float8 * y::float8) from vectors a, vectors b, unnest(a.v, b.v) as t (x, y)
                    where a.n = $1 and b.n = $2";
        db.client.query_one(sql, &[&a, &b]).unwrap_or_else(|e| panic!("{}", explain(&e))).get(0)
    };
    for (a, b, expected) in [(1, 1, 1.0), (1, 2, 0.6660), (1, 3, 0.1046), (2, 3, 0.1411)] {
        let found = alike(a, b);
        assert!((found - expected).abs() < 0.001, "{a} and {b}: {found}");
    }
    let length = db.client.query_one("select array_length(v, 1) from vectors where n = 1", &[]);
    assert_eq!(length.expect("a row").get::<_, i32>(0), 384);
    let error = fails(&mut db.client, "select coco.embed('x', 'models', 'm', 100)");
    assert!(error.starts_with("22023") && error.contains("does not support"), "{error}");
}

//! `coco.create_search` and `coco.search`: what is created, what is found, and who finds it.
#![cfg(feature = "functions")]

use crate::{provider, support};

use postgres::Client;
use provider::Provider;
use support::{TestDb, explain};

/// A database with documents, and a provider as its server `models`.
struct Searching {
    db: TestDb,
    provider: Provider,
}

impl Searching {
    fn new(name: &str) -> Searching {
        let mut db = TestDb::new(&format!("search_{name}"));
        let provider = Provider::start();
        db.run(&format!(
            "create extension vector;
             create server models foreign data wrapper coco_openai options (url '{}');
             create table docs (path text primary key, title text, body text);
             insert into docs values
               ('tides', 'Tides', 'The moon pulls the water of the sea. The coast decides how high the tide is.'),
               ('bread', 'Bread', 'Heat the oven with a heavy pot. The loaf gets a crisp crust.'),
               ('moon', 'Moon', 'The moon has phases.')",
            provider.url()
        ));
        Searching { db, provider }
    }

    /// The paths that a search finds, in their order.
    fn found(&mut self, call: &str) -> Vec<String> {
        found(&mut self.db.client, call)
    }

    fn text(&mut self, sql: &str) -> String {
        let row = self.db.client.query_one(&format!("select ({sql})::text"), &[]);
        row.unwrap_or_else(|e| panic!("{sql}: {}", explain(&e))).get(0)
    }

    fn fails(&mut self, sql: &str) -> String {
        fails(&mut self.db.client, sql)
    }
}

fn found(client: &mut Client, call: &str) -> Vec<String> {
    let rows =
        client.query(&format!("select path from {call} with ordinality order by ordinality"), &[]);
    let rows = rows.unwrap_or_else(|e| panic!("{call}: {}", explain(&e)));
    rows.iter().map(|row| row.get(0)).collect()
}

fn fails(client: &mut Client, sql: &str) -> String {
    let error = client.batch_execute(sql).expect_err(sql);
    let Some(e) = error.as_db_error() else { panic!("{sql}: {error}") };
    let detail = e.hint().unwrap_or("-");
    format!("{} {} | {detail}", e.code().code(), e.message())
}

#[test]
fn words_are_found_with_all_of_them_first() {
    let mut s = Searching::new("words");
    s.db.run("select coco.create_search('texts', 'docs', 'body', configuration => 'english'); select coco.update('texts')");
    assert_eq!(s.found("texts('crust')"), ["bread"]);
    // Only one text has both words; another has one of them.
    assert_eq!(s.found("texts('moon tides')"), ["tides", "moon"]);
    assert_eq!(s.found("texts('Why does the moon pull at the coast?')"), ["tides", "moon"]);
    // Operators mean what they say.
    assert_eq!(s.found("texts('moon -tide')"), ["moon"]);
    assert_eq!(s.found("texts('\"crisp crust\"')"), ["bread"]);
    assert_eq!(s.found("texts('\"crust crisp\"')"), Vec::<String>::new());
    assert_eq!(s.found("texts('crust or phases', 1)").len(), 1);
    assert_eq!(s.found("texts('nothing')"), Vec::<String>::new());
    assert_eq!(s.found("texts('the')"), Vec::<String>::new(), "no word is left of a stop word");
    assert_eq!(s.found("texts('!&|<->:*()''\\')"), Vec::<String>::new());
    // An edit, and a text that is gone.
    s.db.run("update docs set body = 'Stars' where path = 'bread'; delete from docs where path = 'moon'; select coco.update('texts')");
    assert_eq!(s.found("texts('crust')"), Vec::<String>::new());
    let mut both = s.found("texts('moon stars')");
    both.sort();
    assert_eq!(both, ["bread", "tides"]);
    assert_eq!(s.text("select count(*) from coco.verify('texts')"), "0");
    let refused = s.fails("select * from texts('moon', 3, 'vectors')");
    assert!(refused.starts_with("55000 search \"texts\" has no vectors"), "{refused}");
    for (call, expected) in [
        ("texts('moon', 0)", "22023 argument \"max_results\" (0) must be between 1 and 1000"),
        ("texts('moon', 1001)", "22023 argument \"max_results\" (1001) must be between 1 and 1000"),
        ("texts('moon', 3, 'all')", "22023 unrecognized value for argument \"mode\": \"all\""),
        ("texts(null)", "22004 argument \"query\" must not be NULL"),
        ("coco.search('other', 'moon')", "42704 search \"other\" does not exist"),
    ] {
        let refused = s.fails(&format!("select * from {call}"));
        assert!(refused.starts_with(expected), "{refused}");
    }
}

#[test]
fn vectors_and_words_are_fused() {
    let mut s = Searching::new("vectors");
    s.db.run(
        "select coco.create_search('texts', 'docs', 'body', 'models', 'm', configuration => 'english')",
    );
    s.db.run("select coco.update('texts')");
    // One request found out how many dimensions there are.
    assert_eq!(s.text("select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'texts'::regclass and attname = 'embedding'"), "vector(8)");
    assert_eq!(
        s.text(
            "select count(*) from pg_indexes where tablename = 'texts' and indexdef ~ 'gin|hnsw'"
        ),
        "2"
    );
    s.provider.forget();
    // The nearest vector is that of the same text.
    assert_eq!(s.found("texts('The moon has phases.', 1, 'vectors')"), ["moon"]);
    assert_eq!(s.found("texts('The moon has phases.', 10, 'vectors')").len(), 3);
    assert_eq!(s.found("texts('The moon has phases.', 2)")[0], "moon");
    assert_eq!(s.provider.counts().inputs, 1, "the session keeps the embedding of a query");
    let score = s.text("select score from texts('The moon has phases.', 1)");
    assert!((score.parse::<f64>().expect("a number") - 2.0 / 61.0).abs() < 1e-9, "{score}");
    // An edit costs one embedding, a copy none.
    s.provider.forget();
    s.db.run("update docs set body = 'The moon is full.' where path = 'moon'; insert into docs select 'copy', title, body from docs where path = 'bread'");
    s.db.run("select coco.update('texts')");
    assert_eq!(s.provider.counts().inputs, 1);
    assert_eq!(s.found("texts('The moon is full.', 1, 'vectors')"), ["moon"]);
    // Also in a transaction that may not write.
    s.db.run("set default_transaction_read_only = on");
    assert_eq!(s.found("texts('a query of its own', 10, 'vectors')").len(), 4);
    s.db.run("set default_transaction_read_only = off");
    // More dimensions than pgvector indexes as vectors.
    s.provider.dimensions(2500);
    s.db.run("select coco.create_search('large', 'docs', 'body', 'models', 'l')");
    s.db.run("select coco.update('large')");
    assert_eq!(
        s.text(
            "select count(*) from pg_indexes where tablename = 'large' and indexdef ~ 'halfvec'"
        ),
        "1"
    );
    assert_eq!(s.found("large('The moon is full.', 1, 'vectors')"), ["moon"]);
    // What the model reads before texts and queries.
    s.provider.dimensions(8);
    s.db.run("select coco.create_search('prefixed', 'docs', 'body', 'models', 'p', text_prefix => 'passage: ', query_prefix => 'passage: ')");
    s.db.run("select coco.update('prefixed')");
    assert_eq!(s.text("select count(*) from prefixed where chunk like 'passage%'"), "0");
    assert_eq!(s.found("prefixed('The moon is full.', 1, 'vectors')"), ["moon"]);
    let request = s.provider.requests().pop().expect("a request").body;
    assert!(request.contains("passage: The moon is full."), "{request}");
    // A model that changes its mind.
    s.provider.dimensions(16);
    let refused = s.fails("select * from large('another query', 1, 'vectors')");
    assert!(refused.starts_with("22000 model l returned 16 dimensions"), "{refused}");
}

#[test]
fn a_searcher_finds_what_she_sees_in_the_source_and_nothing_else() {
    let mut s = Searching::new("tenants");
    for role in ["coco_search_1", "coco_search_2", "coco_search_none"] {
        s.db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$"
        ));
    }
    s.db.run(
        "create table notes (tenant text, id int, body text, primary key (tenant, id));
         insert into notes select 'coco_search_' || i % 2 + 1, i, 'note ' || i || ' about ' ||
                (array['bread', 'moon', 'tides', 'stars', 'oven'])[i % 5 + 1] || ' and ' || (array['salt', 'light'])[i % 7 % 2 + 1]
           from generate_series(1, 400) i;
         alter table notes enable row level security;
         create policy own on notes using (tenant = current_user);
         select coco.create_search('found_notes', 'notes', 'body', 'models', 'm', configuration => 'english');
         grant usage on schema coco to coco_search_1, coco_search_2, coco_search_none;
         grant select on notes, found_notes to coco_search_1, coco_search_2;
         grant execute on function found_notes to coco_search_1, coco_search_2",
    );
    s.db.run("select coco.update('found_notes')");
    let mut rng = fastrand::Rng::with_seed(7);
    for n in [1, 2] {
        let role = format!("coco_search_{n}");
        let mut searcher = s.db.connect_as(&role);
        for _ in 0..200 {
            let words = ["bread", "moon", "tides", "stars", "oven", "salt", "light", "note"];
            let query = format!("{} {}", words[rng.usize(0..8)], words[rng.usize(0..8)]);
            let mode = ["words", "vectors", "hybrid"][rng.usize(0..3)];
            let sql = "select tenant, score from found_notes($1, 10, $2)";
            let rows =
                searcher.query(sql, &[&query, &mode]).unwrap_or_else(|e| panic!("{}", explain(&e)));
            assert_eq!(rows.len(), 10, "{query} {mode}");
            assert!(rows.iter().all(|row| row.get::<_, String>(0) == role), "{query} {mode}");
            // Scores do not tell of notes of others between these.
            let first: f64 = rows[0].get(1);
            let expected = if mode == "hybrid" { first } else { 1.0 / 61.0 };
            assert!((first - expected).abs() < 1e-9, "{query} {mode}: {first}");
        }
        let foreign =
            searcher.query_one("select count(*) from found_notes where tenant <> $1", &[&role]);
        assert_eq!(foreign.expect("she may read").get::<_, i64>(0), 0);
    }
    let mut nobody = s.db.connect_as("coco_search_none");
    assert!(
        fails(&mut nobody, "select * from found_notes('moon')")
            .starts_with("42501 permission denied for function")
    );
    let refused = fails(&mut nobody, "select * from coco.search('found_notes', 'moon')");
    assert!(refused.starts_with("42501 permission denied for search \"found_notes\""), "{refused}");
    // SELECT on the chunks alone does not suffice.
    s.db.run("grant select on found_notes to coco_search_none");
    let refused = fails(&mut nobody, "select * from coco.search('found_notes', 'moon')");
    assert!(refused.starts_with("42501 permission denied for table notes"), "{refused}");
    // The policy stays through a change without a gap.
    s.db.run(
        "select coco.set_query('found_notes', 'found_notes', (select query from coco.targets where flow = 'found_notes') || ' ', gapless => true)",
    );
    s.db.run("select coco.update('found_notes')");
    let mut searcher = s.db.connect_as("coco_search_1");
    let rows = searcher.query("select distinct tenant from found_notes('moon', 50)", &[]);
    assert_eq!(rows.expect("she may search").len(), 1);
    s.db.run("drop owned by coco_search_1, coco_search_2, coco_search_none");
}

#[test]
fn code_of_the_owner_does_not_run_as_the_searcher() {
    let mut s = Searching::new("mallory");
    s.db.run(
        "do $$ begin create role coco_search_mallory login; exception when duplicate_object or unique_violation then null; end $$;
         grant usage on schema coco to coco_search_mallory; create schema mallory authorization coco_search_mallory;
         create table public.seen (who text); grant insert on seen to public",
    );
    let mut mallory = s.db.connect_as("coco_search_mallory");
    mallory
        .batch_execute(
            "set search_path = mallory, public;
             create type mood as enum ('good', 'bad');
             create function told(mood) returns json language plpgsql as
               $$begin insert into public.seen values (current_user); return to_json($1::text); end$$;
             create cast (mood as json) with function told(mood);
             create table moods (mood mood primary key, body text);
             insert into moods values ('good', 'sun and moon'), ('bad', 'rain');
             select coco.create_search('moods_search', 'moods', 'body')",
        )
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    mallory
        .batch_execute("select coco.update('moods_search')")
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    s.db.run("truncate seen");
    assert_eq!(
        s.text("select source_key from coco.search('moods_search', 'moon')"),
        "{\"mood\": \"good\"}"
    );
    assert_eq!(s.text("select string_agg(distinct who, ',') from seen"), "coco_search_mallory");
    s.db.run(
        "select coco.drop_flow(flow) from coco.flows; drop owned by coco_search_mallory cascade",
    );
}

#[test]
fn a_search_is_an_ordinary_flow() {
    let mut s = Searching::new("flow");
    s.db.run(
        "create table files (id bigint generated always as identity primary key, content bytea);
         insert into files (content) values (convert_to('<html><body><p>A page about lighthouses</p></body></html>', 'utf8'));
         select coco.create_search('pages', 'files', 'content', configuration => 'english');
         select coco.update('pages')",
    );
    #[cfg(feature = "documents")]
    assert_eq!(s.text("select id from pages('lighthouse')"), "1");
    // Code is split by its syntax.
    s.db.run(
        "create table code (id int primary key, text varchar(1000));
         insert into code values (1, 'def lighthouse():\n    return 1\n\ndef harbor():\n    return 2\n');
         select coco.create_search('snippets', 'code', 'text', language => 'python', size => 30, overlap => 0);
         select coco.update('snippets')",
    );
    #[cfg(feature = "code")]
    assert_eq!(s.text("select chunk_no from snippets('harbor')"), "2");
    // A rename keeps the function.
    s.db.run("select coco.rename_flow('snippets', 'pieces')");
    assert_eq!(s.text("select count(*) from snippets('return')"), "2");
    // Again, and not again.
    let refused = s.fails("select coco.create_search('pages', 'files', 'content')");
    assert!(refused.starts_with("42710 flow \"pages\" already exists"), "{refused}");
    s.db.run("select coco.create_search('pages', 'files', 'content', if_not_exists => true)");
    // All of it goes with the flow.
    s.db.run("select coco.drop_flow(flow) from coco.flows");
    assert_eq!(s.text("select count(*) from coco_internal.search"), "0");
    assert_eq!(s.text("select count(*) from pg_proc where pronamespace = 'public'::regnamespace and prosrc like '%coco.search%'"), "0");
    s.db.run("select coco.create_search('pages', 'files', 'content'); select coco.update('pages')");
    for (arguments, expected) in [
        ("'x', 'docs', 'nothing'", "42703 column \"nothing\" of public.docs does not exist"),
        (
            "'x', 'docs', 'body', server => 'models'",
            "22023 argument \"server\" is given without both",
        ),
        (
            "'x', 'docs', 'body', dimensions => 3",
            "22023 argument \"dimensions\" is given without both",
        ),
        (
            "'x', 'docs', 'body', 'models', 'm', dimensions => 0",
            "22023 argument \"dimensions\" (0) must be greater than 0",
        ),
        ("'x', 'docs', 'body', 'nowhere', 'm'", "42704 server \"nowhere\" does not exist"),
        ("'x', 'docs', 'body', size => 0", "22023 invalid values for arguments \"size\""),
        (
            "'x', 'docs', 'body', language => 'klingon'",
            "22023 unrecognized value for argument \"language\"",
        ),
        ("'x', 'docs', null", "22004 argument \"text\" must not be NULL"),
        ("'x', 'without', 'body'", "55000 public.without has no primary key"),
        (
            "'x', 'reserved', 'body'",
            "42701 the key column \"query\" has a name that the search uses itself",
        ),
    ] {
        s.db.run("create table if not exists without (id int, body text); create table if not exists reserved (query int primary key, body text)");
        let refused = s.fails(&format!("select coco.create_search({arguments})"));
        assert!(refused.starts_with(expected), "{arguments}: {refused}");
        assert_eq!(s.text("select count(*) from coco.flows"), "1", "{arguments}");
    }
    s.db.run("select coco.drop_flow(flow) from coco.flows; drop extension vector");
    let refused = s.fails("select coco.create_search('x', 'docs', 'body', 'models', 'm')");
    assert!(
        refused.starts_with("42704 a search by vectors needs the extension vector"),
        "{refused}"
    );
}

//! Results of functions that call providers.

use super::{fails, number};
use crate::provider::{Provider, vector};
use crate::support::TestDb;

/// A flow that embeds the texts of `docs` with a model.
fn flow(name: &str, model: &str) -> String {
    format!(
        "select coco.create_flow('{name}', 'docs', $q$ select id, body, coco.embed(body, 'models', '{model}') as e from docs $q$,
           't_{name}', '{{id}}')"
    )
}

/// Updates a flow whose rows are right afterwards, and returns how many texts it asked for.
fn asked_by(db: &mut TestDb, provider: &Provider, name: &str, mode: &str) -> usize {
    provider.forget();
    db.update(name, mode);
    let rows = db.client.query(&format!("select body, e from t_{name}"), &[]).expect("rows");
    assert_eq!(rows.len() as i64, number(db, "select count(*) from docs"));
    for row in rows {
        let (text, e): (String, Vec<f32>) = (row.get(0), row.get(1));
        assert_eq!(e, vector(&text, e.len()), "{text}");
    }
    provider.counts().inputs
}

#[test]
fn a_provider_is_asked_once_for_all_flows_of_an_owner() {
    let mut db = TestDb::new("memo_reuse_provided");
    let provider = Provider::start();
    db.run(&format!(
        "create server models foreign data wrapper coco_openai options (url '{}');
         create table docs (id int primary key, body text);
         insert into docs select i, 'text ' || i from generate_series(1, 30) i",
        provider.url()
    ));
    db.run(&flow("f", "m"));
    assert_eq!(asked_by(&mut db, &provider, "f", "normal"), 30);
    db.run(&flow("g", "m"));
    provider.forget();
    assert_eq!(number(&mut db, "select count(*) from coco.preview('g')"), 30);
    assert_eq!(provider.counts().inputs, 0, "looking asks for nothing");
    assert_eq!(asked_by(&mut db, &provider, "g", "normal"), 0);
    let stats = "select sum(reused) from coco.functions where flow = 'g' and misses = 0 and requests = 0 and cost = 0";
    assert_eq!(number(&mut db, stats), 30);
    // Settings are not the provider's; the model is.
    db.run(&format!("set timezone = 'Asia/Tokyo'; {}; reset timezone", flow("tokyo", "m")));
    assert_eq!(asked_by(&mut db, &provider, "tokyo", "normal"), 0);
    db.run(&flow("model", "n"));
    assert_eq!(asked_by(&mut db, &provider, "model", "normal"), 30);
    // One new text, for three flows.
    db.run("insert into docs values (31, 'another')");
    let asked: usize =
        ["f", "g", "tokyo"].iter().map(|name| asked_by(&mut db, &provider, name, "normal")).sum();
    assert_eq!(asked, 1);
    for name in ["f", "g", "tokyo"] {
        db.run(&format!("select coco.drop_flow('{name}', keep_targets => false)"));
    }
    db.run(&flow("f", "m"));
    assert_eq!(asked_by(&mut db, &provider, "f", "normal"), 0, "declared again");
    db.run("select coco.clear_memo(function => 'coco.embed(text,text,text,int)')");
    assert_eq!(number(&mut db, "select count(*) from coco.kept_results"), 0);
    assert_eq!(asked_by(&mut db, &provider, "f", "reexport"), 31);
    assert!(fails(&mut db.client, "select coco.clear_memo('g')").contains("(42704)"));
}

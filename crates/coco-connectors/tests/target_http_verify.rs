//! Digests that a webhook stores with each row, and returns on request.

use coco_connectors::targets::options::{Access, Options};
use coco_connectors::targets::{self, Connector, Target};
use coco_core::change::TargetSchema;
use coco_core::key_range::{Digest, KeyRange, PartDigests, RangeDigest};
use serde_json::json;
use tokio::runtime::Runtime;

use crate::http::{Fault, Receiver};

fn connector() -> &'static Connector {
    targets::connector("coco_http").expect("this build has it")
}

fn open(receiver: &Receiver) -> Box<dyn Target> {
    let options = |pairs: &[(&str, &str)]| {
        Options(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    };
    let server = options(&[("url", &receiver.url()), ("digests", "true")]);
    let access = Access { server, user: options(&[]), trusted: false };
    connector().connect(access).expect("a target")
}

fn schema() -> TargetSchema {
    TargetSchema {
        flow: "f".to_owned(),
        target: "t".to_owned(),
        columns: vec![],
        key: vec![],
        options: serde_json::Map::new(),
    }
}

#[test]
fn a_webhook_answers_requests_for_digests() {
    let receiver = Receiver::start();
    let runtime = Runtime::new().expect("a runtime");
    let mut target = open(&receiver);
    let schema = schema();
    let range = KeyRange::from_prefix("0a").expect("a range");
    let answer = |body: serde_json::Value| {
        receiver.next(Fault::answer(200, ("x-test", "1"), &body.to_string()));
    };
    let json_of_last = || -> serde_json::Value {
        let requests = receiver.requests();
        serde_json::from_str(&requests.last().expect("a request").body).expect("JSON")
    };

    answer(json!({"parts": [{"prefix": "0a7", "rows": 2, "high": "1", "low": "ff"}]}));
    let parts = runtime.block_on(target.part_digests(&schema, &[range], 3));
    let part = KeyRange::from_prefix("0a7").expect("a range");
    let digest = RangeDigest { rows: 2, high: 1, low: 255 };
    assert_eq!(parts, Ok(PartDigests::from([(part, digest)])));
    assert_eq!(
        json_of_last(),
        json!({"flow": "f", "target": "t", "query": "digests", "prefixes": ["0a"], "digits": 3})
    );

    let key = format!("0a{}", "0".repeat(30));
    let row = |key: &str| json!({"key": {"id": 1}, "key_digest": key, "row_digest": key});
    answer(json!({ "rows": [row(&key)] }));
    let rows = runtime.block_on(target.held_rows(&schema, &[range], 1)).expect("rows");
    assert_eq!(
        (rows[0].key, rows[0].json.as_str()),
        (Digest::from_hex(&key).expect("a digest"), r#"{"id":1}"#)
    );
    assert_eq!(json_of_last()["limit"], 2);
    answer(json!({ "rows": [row(&key), row(&key)] }));
    let error = runtime.block_on(target.held_rows(&schema, &[range], 1)).expect_err("too many");
    assert_eq!(error.sqlstate, "40001");
}

#[test]
fn a_webhook_that_gives_another_answer_is_told_apart() {
    let receiver = Receiver::start();
    let runtime = Runtime::new().expect("a runtime");
    let mut target = open(&receiver);
    receiver.next(Fault::answer(200, ("x-test", "1"), r#"{"refused": []}"#));
    let parts = runtime.block_on(target.part_digests(&schema(), &[KeyRange::ALL], 1));
    assert_eq!(parts.expect_err("no digests").sqlstate, "08P01");
    receiver.next(Fault::status(401));
    let parts = runtime.block_on(target.part_digests(&schema(), &[KeyRange::ALL], 1));
    assert_eq!(parts.expect_err("no login").sqlstate, "28P01");
    receiver.next(Fault::status(422));
    let parts = runtime.block_on(target.part_digests(&schema(), &[KeyRange::ALL], 1));
    assert_eq!(parts.expect_err("refused").sqlstate, "22000");
}

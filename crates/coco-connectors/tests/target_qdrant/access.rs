//! Access to a server: keys, certificates and options.

use coco_connectors::targets::Prepared;
use coco_connectors::targets::options::{Access, OptionScope};
use coco_core::change::ErrorScope;
use serde_json::Value;

use super::{KEY, Server, access, assert_trouble, docs, open, qdrant, schema};

#[test]
fn who_has_no_key_or_a_wrong_one_is_not_let_in_and_no_message_has_it() {
    let server = Server::start(&["--api-key", KEY]);
    let schema = docs();
    let prepare = |user: &[(&str, &str)]| {
        let mut target = open(access(&[("url", &server.url)], user)).expect("a target");
        server.block_on(target.prepare(&schema))
    };
    let none = prepare(&[]).expect_err("no key");
    assert_trouble(&none, ErrorScope::Server, "28000");
    // The server repeats the key.
    let wrong = prepare(&[("api_key", "wr0ng-secret")]).expect_err("a wrong key");
    assert_trouble(&wrong, ErrorScope::Server, "28000");
    assert!(wrong.message.contains("Invalid API key ***"), "{wrong:?}");
    assert!(wrong.hint.as_deref().is_some_and(|h| h.contains("USER MAPPING")));
    assert!(!format!("{wrong:?}").contains("wr0ng-secret"));
    assert_eq!(prepare(&[("api_key", KEY)]), Ok(Prepared::Made));
}

#[test]
fn who_is_no_superuser_must_have_a_key() {
    let untrusted = |user: &[(&str, &str)]| {
        let access = access(&[("url", "http://127.0.0.1")], user);
        open(Access { trusted: false, ..access })
    };
    let Err(none) = untrusted(&[]) else { panic!("let in") };
    assert_trouble(&none, ErrorScope::Server, "28000");
    assert!(untrusted(&[("api_key", KEY)]).is_ok());
}

#[test]
fn over_tls_the_certificate_is_checked() {
    let server = Server::start(&["--tls", "--api-key", KEY]);
    assert!(server.url.starts_with("https://"));
    let schema = docs();
    let prepare = |options: &[(&str, &str)]| {
        let mut target = open(access(options, &[("api_key", KEY)])).expect("a target");
        server.block_on(target.prepare(&schema))
    };
    let authority =
        std::fs::read_to_string(server.script.dir.join("ca.pem")).expect("a certificate");
    let url = server.url.as_str();
    assert_eq!(prepare(&[("url", url), ("sslrootcert", &authority)]), Ok(Prepared::Made));
    // The certificate belongs to another server.
    let address = url.replace("localhost", "127.0.0.1");
    let error = prepare(&[("url", &address), ("sslrootcert", &authority)]).expect_err("a name");
    assert_trouble(&error, ErrorScope::Server, "08001");
    // The system trusts no issuer of the certificate.
    let unknown = open(access(&[("url", url)], &[("api_key", KEY)]))
        .and_then(|mut target| server.block_on(target.prepare(&schema)));
    assert_eq!(unknown.expect_err("not trusted").scope, ErrorScope::Server);
}

#[test]
fn options_are_checked_one_by_one() {
    let wrong = |name: &str, value: &str| {
        let spec = qdrant().options.iter().find(|spec| spec.name == name).expect(name);
        (spec.check)(value).expect_err(value)
    };
    for url in ["localhost:6334", "grpc://localhost", "http://user:pw@localhost", "http://h/x"] {
        assert!(!wrong("url", url).contains("pw"));
    }
    for seconds in ["0", "-1", "1.5", "soon"] {
        wrong("request_timeout", seconds);
        wrong("connect_timeout", seconds);
    }
    wrong("sslrootcert", "/etc/passwd");
    wrong("sslrootcert", "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n");
    assert!(!wrong("api_key", "s3cret\n").contains("s3cret"));
    wrong("vectors", "[]");
    wrong("vectors", r#"{"e": {"distance": "l2"}}"#);

    let secrets: Vec<&str> =
        qdrant().options.iter().filter(|spec| spec.secret).map(|spec| spec.name).collect();
    assert_eq!(secrets, ["api_key"]);
    assert!(
        qdrant().options.iter().all(|spec| !spec.secret || spec.scope == OptionScope::UserMapping)
    );

    let plain = [("url", "http://localhost"), ("sslrootcert", "x")];
    let Err(error) = open(access(&plain, &[])) else { panic!("no TLS to use it for") };
    assert_trouble(&error, ErrorScope::Server, "HV024");
    let check = (qdrant().check)(&schema("t", 1, &[("id", "text"), ("b", "text")], Value::Null));
    assert!(check.expect_err("no vector").contains("no column is a vector"));
}

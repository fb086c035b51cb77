//! The options of servers, users and targets.

use coco_connectors::targets;
use coco_connectors::targets::options::OptionScope;
use coco_core::change::ErrorScope;

use super::{connector, open, text};
use crate::http::Receiver;

#[test]
fn options_that_are_wrong_are_refused_with_the_reason() {
    for (on, name, value, why) in [
        (OptionScope::Server, "url", "hooks.example", "must be a URL"),
        (OptionScope::Server, "url", "ftp://hooks.example", "must start with http"),
        (OptionScope::Server, "url", "file:///etc/passwd", "must start with http"),
        (OptionScope::Server, "url", "unix:/run/docker.sock", "must start with http"),
        (
            OptionScope::Server,
            "url",
            "https://me:s3cret@hooks.example",
            "belong in the user mapping",
        ),
        (OptionScope::Server, "url", "https://s3cret@hooks.example", "belong in the user mapping"),
        (OptionScope::Server, "url", "https://me:s3cret@hooks.example:x", "must be a URL"),
        (OptionScope::Server, "url", "https://hooks.example/#s3cret", "fragment"),
        (OptionScope::Server, "connect_timeout", "0", "from 1 to 3600"),
        (OptionScope::Server, "request_timeout", "3601", "from 1 to 3600"),
        (OptionScope::Server, "request_timeout", "1.5", "from 1 to 3600"),
        (OptionScope::Server, "batch_size", "0", "greater than 0"),
        (OptionScope::Server, "headers", "X-A: b", "JSON object"),
        (OptionScope::Server, "headers", r#"{"Authorization": "s3cret"}"#, "user mapping"),
        (OptionScope::Server, "headers", r#"{"Content-Type": "text/plain"}"#, "content-type"),
        (OptionScope::Server, "api_key_header", "Host", "must not name the header host"),
        (OptionScope::Server, "api_key_header", "a:b", "invalid header"),
        (OptionScope::Server, "sslrootcert", "/etc/passwd", "not a path"),
        (
            OptionScope::Server,
            "sslrootcert",
            "-----BEGIN CERTIFICATE-----\ns3cret",
            "not valid PEM",
        ),
        (
            OptionScope::Server,
            "sslrootcert",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "cannot be used",
        ),
        (OptionScope::UserMapping, "bearer_token", "s3cret\r\nX-Evil: 1", "printable ASCII"),
        (OptionScope::UserMapping, "bearer_token", "", "must not be empty"),
        (OptionScope::UserMapping, "api_key", "s3cret\u{e9}", "printable ASCII"),
        (OptionScope::UserMapping, "user", "me:s3cret", "no colon"),
        (OptionScope::UserMapping, "hmac_secret", "", "must not be empty"),
    ] {
        let error = (spec(on, name).check)(value).expect_err(value);
        assert!(error.contains(why), "{name} {value:?}: {error}");
        assert!(!error.contains("s3cret"), "{name} {value:?}: {error}");
    }
}

#[test]
fn options_that_are_right_are_taken() {
    let secure = Receiver::start_tls(&["127.0.0.1"]);
    for (on, name, value) in [
        (OptionScope::Server, "url", "http://[::1]:8080/a/b?c=d"),
        (OptionScope::Server, "url", "https://hooks.example"),
        (OptionScope::Server, "connect_timeout", "1"),
        (OptionScope::Server, "request_timeout", "3600"),
        (OptionScope::Server, "batch_size", "100"),
        (OptionScope::Server, "headers", r#"{"X-Env": "test"}"#),
        (OptionScope::Server, "api_key_header", "Authorization"),
        (OptionScope::Server, "sslrootcert", secure.certificate()),
        (OptionScope::UserMapping, "bearer_token", "abc.DEF-123_~+/="),
        (OptionScope::UserMapping, "user", "me@example.org"),
        (OptionScope::UserMapping, "password", "any: thing é"),
        (OptionScope::UserMapping, "api_key", "Token token=\"x\""),
        (OptionScope::UserMapping, "hmac_secret", "any: thing é"),
    ] {
        assert_eq!((spec(on, name).check)(value), Ok(()), "{name} {value:?}");
    }
    assert!(spec(OptionScope::Server, "url").required);
    for secret in ["bearer_token", "password", "api_key", "hmac_secret"] {
        assert!(spec(OptionScope::UserMapping, secret).secret, "{secret}");
    }
}

fn spec(on: OptionScope, name: &str) -> &'static targets::options::OptionSpec {
    let mut specs = connector().options.iter();
    specs.find(|s| s.scope == on && s.name == name).unwrap_or_else(|| panic!("no option {name}"))
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let secure = Receiver::start_tls(&["127.0.0.1"]);
    let url = ("url", "http://hooks.example/");
    type Pairs<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Pairs, Pairs, &str); 7] = [
        (&[], &[], "\"url\" is missing"),
        (&[url, ("sslrootcert", secure.certificate())], &[], "does not start with https"),
        (&[url], &[("bearer_token", "s3cret"), ("user", "me")], "already"),
        (&[url], &[("password", "s3cret")], "no user"),
        (&[url, ("headers", r#"{"X-API-Key": "x"}"#)], &[("api_key", "s3cret")], "already"),
        (
            &[url, ("api_key_header", "Authorization")],
            &[("api_key", "s3cret"), ("bearer_token", "s3cret")],
            "already",
        ),
        (&[url, ("batch_size", "0")], &[], "greater than 0"),
    ];
    for (server, user, why) in cases {
        let error = open(server, user).err().unwrap_or_else(|| panic!("{why}: not refused"));
        assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "HV024"));
        assert!(error.message.contains(why), "{}", error.message);
        assert!(!text(&error).contains("s3cret"), "{error:?}");
    }
}

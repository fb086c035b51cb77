//! Credentials, signatures and TLS.

use std::process::Command;

use coco_connectors::targets::options::Access;
use coco_core::change::ErrorScope;

use super::{Webhook, delete, open, options, rows, text, upsert, upserts};
use crate::http::{Fault, Receiver};

#[test]
fn credentials_are_sent_and_wrong_ones_are_the_servers_trouble() {
    let token = ("authorization", "Bearer t0ken", [("bearer_token", "t0ken")].as_slice());
    let basic = (
        "authorization",
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        [("user", "Aladdin"), ("password", "open sesame")].as_slice(),
    );
    let alone = ("authorization", "Basic a2V5Og==", [("user", "key")].as_slice());
    let key = ("x-api-key", "k3y", [("api_key", "k3y")].as_slice());
    for (name, value, user) in [token, basic, alone, key] {
        let receiver = Receiver::start();
        receiver.want(name, value);
        Webhook::with(&receiver, &[], user).deliver(&[upsert(1, "one", 1)]);
        let wrong = [("user", "Aladdin"), ("password", "wr0ng"), ("api_key", "wr0ng")];
        for user in [wrong.as_slice(), &[]] {
            let error = Webhook::with(&receiver, &[], user).fails(&[upsert(2, "two", 1)]);
            assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "28P01"));
            assert!(error.hint.as_ref().is_some_and(|h| h.contains("user mapping")));
            assert_eq!(error.detail.as_deref(), Some("The server says: who are you?"));
            assert!(!text(&error).contains("wr0ng"), "{error:?}");
        }
        assert_eq!(rows(&receiver).len(), 1);
    }
}

#[test]
fn an_api_key_goes_into_the_header_that_the_server_names() {
    let receiver = Receiver::start();
    receiver.want("authorization", "Splunk k3y");
    let server = [("api_key_header", "Authorization")];
    Webhook::with(&receiver, &server, &[("api_key", "Splunk k3y")]).deliver(&[upsert(1, "one", 1)]);
}

#[test]
fn requests_are_signed() {
    let receiver = Receiver::start();
    receiver.want_signature("ключ");
    let changes = [upsert(1, "naïve", 1)];
    Webhook::with(&receiver, &[], &[("hmac_secret", "ключ")]).deliver(&changes);
    for user in [[("hmac_secret", "other")].as_slice(), &[]] {
        let error = Webhook::with(&receiver, &[], user).fails(&changes);
        assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Target, "42501"));
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("hmac_secret")));
        assert!(!text(&error).contains("other"), "{error:?}");
    }
}

#[test]
fn secrets_are_not_shown_also_where_the_server_repeats_them() {
    let receiver = Receiver::start();
    let echo = |status| {
        let body = r#"{"message":"got k3y, \"p4ss, s1gn and dTpcInA0c3M="}"#;
        Fault::answer(status, ("x", "y"), &body.replace("dTpcInA0c3M=", "dToicDRzcw=="))
    };
    let user = [("user", "u"), ("password", "\"p4ss"), ("api_key", "k3y"), ("hmac_secret", "s1gn")];
    let mut webhook = Webhook::with(&receiver, &[], &user);
    receiver.always(Some(echo(422)));
    let rejected = webhook.apply(&upserts(1)).expect("no trouble");
    assert!(rejected[0].message.ends_with("got ***, ***, *** and ***"), "{rejected:?}");
    for status in [401, 403, 404, 429, 500] {
        receiver.always(Some(echo(status)));
        let error = webhook.fails(&upserts(1));
        assert_eq!(error.detail.as_deref(), Some("The server says: got ***, ***, *** and ***"));
        assert!(!text(&error).contains("coco?in"), "the path may be one: {error:?}");
    }
    let access = Access { server: options(&[]), user: options(&user), trusted: true };
    assert!(!format!("{access:?}").contains("k3y"));
}

/// A client reads the environment when it is created, so the variables must be set in another
/// process.
#[test]
fn proxies_of_the_environment_are_not_used() {
    const NAME: &str = "target_http::access::proxies_of_the_environment_are_not_used";
    if std::env::var_os("COCO_TEST_PROXIES").is_some() {
        let receiver = Receiver::start();
        Webhook::open(&receiver).deliver(&upserts(1));
        let receiver = Receiver::start_tls(&["127.0.0.1"]);
        let server = [("sslrootcert", receiver.certificate())];
        Webhook::with(&receiver, &server, &[]).deliver(&upserts(1));
        return;
    }
    let proxy = Receiver::start();
    let mut test = Command::new(std::env::current_exe().expect("this test"));
    test.args(["--exact", NAME]).env("COCO_TEST_PROXIES", "1");
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    {
        test.env(name, proxy.url());
    }
    let output = test.env_remove("no_proxy").env_remove("NO_PROXY").output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
    assert_eq!(proxy.requests().len(), 0);
}

#[test]
fn tls_wants_a_certificate_that_it_can_trust() {
    let receiver = Receiver::start_tls(&["127.0.0.1"]);
    let trusted = [("sslrootcert", receiver.certificate())];
    let mut webhook = Webhook::with(&receiver, &trusted, &[("bearer_token", "t0ken")]);
    webhook.deliver(&upserts(2));
    webhook.deliver(&[delete(1, 2)]);
    assert_eq!(rows(&receiver).len(), 1);

    // A certificate unknown to the system, another server's certificate, and a trusted one with
    // another name.
    let other = Receiver::start_tls(&["127.0.0.1"]);
    let named = Receiver::start_tls(&["example.org"]);
    for (receiver, certificate) in [
        (&receiver, None),
        (&receiver, Some(other.certificate())),
        (&named, Some(named.certificate())),
    ] {
        let server: Vec<_> = certificate.map(|pem| ("sslrootcert", pem)).into_iter().collect();
        let error = match open(&[&[("url", receiver.url().as_str())], &server[..]].concat(), &[]) {
            // Without any root certificates, the error is immediate.
            Err(error) => error,
            Ok(_) => Webhook::with(receiver, &server, &[]).fails(&upserts(1)),
        };
        assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08001"));
        assert!(error.hint.as_ref().is_some_and(|h| h.contains("sslrootcert")), "{error:?}");
        assert!(certificate.is_none() || text(&error).contains("certificate"), "{error:?}");
    }
    assert_eq!((receiver.requests().len(), named.requests().len()), (2, 0));
}

#[test]
fn a_server_without_tls_is_not_taken_for_one_with_it() {
    let (plain, secure) = (Receiver::start(), Receiver::start_tls(&["127.0.0.1"]));
    let url = plain.url().replace("http:", "https:");
    let options = [("url", url.as_str()), ("sslrootcert", secure.certificate())];
    let error = Webhook::with(&plain, &options, &[]).fails(&upserts(1));
    assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Server, "08001"));
    assert_eq!(plain.requests().len(), 0);
}

//! Access to a broker: passwords, certificates, rights and options.

use coco_connectors::targets::{self, Prepared};
use coco_core::change::ErrorScope;

use super::{PASSWORD, apply, delivery_error, open, plain, run, schema, upsert, values};
use crate::server::kafka;
use crate::topic::{contents, exists, records};

#[test]
fn a_password_is_asked_for_and_told_to_nobody() {
    let kafka = kafka();
    let server = [
        ("bootstrap_servers", kafka.sasl_plaintext.as_str()),
        ("security_protocol", "sasl_plaintext"),
        ("sasl_mechanism", "PLAIN"),
    ];
    let schema = schema("sasl");
    run(async {
        for user in [
            [("user", "writer"), ("password", "wrong-secret")],
            [("user", "no one"), ("password", PASSWORD)],
        ] {
            let wrong =
                delivery_error(open(&server, &user).expect("a target").prepare(&schema).await);
            assert_eq!(
                (wrong.scope, wrong.sqlstate.as_str()),
                (ErrorScope::Server, "28P01"),
                "{wrong:?}"
            );
            assert!(wrong.hint.is_some_and(|h| h.contains("user mapping")));
            // Also without `prepare`.
            let wrong = delivery_error(
                open(&server, &user).expect("a target").apply(&schema, &[upsert(1, "a", 1)]).await,
            );
            assert_eq!(
                (wrong.scope, wrong.sqlstate.as_str()),
                (ErrorScope::Server, "28P01"),
                "{wrong:?}"
            );
            let wrong =
                delivery_error(open(&server, &user).expect("a target").remove(&schema).await);
            assert_eq!(
                (wrong.scope, wrong.sqlstate.as_str()),
                (ErrorScope::Server, "28P01"),
                "{wrong:?}"
            );
        }
        assert!(!exists(&kafka, "sasl"));
        let mut target =
            open(&server, &[("user", "writer"), ("password", PASSWORD)]).expect("a target");
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &[upsert(1, "a", 1)]).await, []);

        // A mechanism that this listener does not support.
        let scram = [server[0], server[1], ("sasl_mechanism", "SCRAM-SHA-512")];
        let user = [("user", "writer"), ("password", PASSWORD)];
        let wrong = delivery_error(open(&scram, &user).expect("a target").prepare(&schema).await);
        assert_eq!(wrong.scope, ErrorScope::Server);
        assert!(wrong.sqlstate.starts_with("28"), "{wrong:?}");
    });
    assert_eq!(contents(&kafka, "sasl"), values(&[upsert(1, "a", 1)]));
}

#[test]
fn tls_is_checked_and_scram_goes_through_it() {
    let kafka = kafka();
    let schema = schema("tls");
    let server = [
        ("bootstrap_servers", kafka.sasl_ssl.as_str()),
        ("security_protocol", "sasl_ssl"),
        ("sasl_mechanism", "SCRAM-SHA-256"),
        ("sslrootcert", kafka.certificate.as_str()),
    ];
    let user = [("user", "writer"), ("password", PASSWORD)];
    run(async {
        let mut target = open(&server, &user).expect("a target");
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &[upsert(1, "a", 1)]).await, []);

        let user = [("user", "writer"), ("password", "wrong-secret")];
        let wrong = delivery_error(open(&server, &user).expect("a target").prepare(&schema).await);
        assert_eq!(wrong.sqlstate, "28P01", "{wrong:?}");

        // The system does not trust the issuer of the broker's certificate.
        let unknown =
            delivery_error(open(&server[..3], &user).expect("a target").prepare(&schema).await);
        assert_eq!(
            (unknown.scope, unknown.sqlstate.as_str()),
            (ErrorScope::Server, "08001"),
            "{unknown:?}"
        );
        assert!(unknown.hint.is_some_and(|h| h.contains("sslrootcert")));

        // TLS to a plaintext listener, and plaintext to a TLS listener.
        for (address, protocol) in [(&kafka.plaintext, "ssl"), (&kafka.sasl_ssl, "plaintext")] {
            let server = [
                ("bootstrap_servers", address.as_str()),
                ("security_protocol", protocol),
                ("request_timeout", "2"),
            ];
            let wrong =
                delivery_error(open(&server, &[]).expect("a target").prepare(&schema).await);
            assert_eq!(
                (wrong.scope, wrong.sqlstate.as_str()),
                (ErrorScope::Server, "08006"),
                "{wrong:?}"
            );
            assert!(
                wrong.detail.is_some()
                    && wrong.hint.is_some_and(|h| h.contains("security_protocol"))
            );
        }
    });
    assert_eq!(contents(&kafka, "tls"), values(&[upsert(1, "a", 1)]));
}

#[test]
fn certificates_and_keys_that_are_none_are_told_without_their_text() {
    let kafka = kafka();
    let server = [("bootstrap_servers", kafka.sasl_ssl.as_str()), ("security_protocol", "ssl")];
    let pem = |what: &str| format!("-----BEGIN {what}-----\nwrong-secret\n-----END {what}-----\n");
    let (certificate, key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
    let user = [("sslcert", certificate.as_str()), ("sslkey", key.as_str())];
    let mut target = open(&server, &user).expect("a target");
    let wrong = delivery_error(run(target.prepare(&schema("pem"))));
    assert_eq!((wrong.scope, wrong.sqlstate.as_str()), (ErrorScope::Server, "HV024"), "{wrong:?}");
}

#[test]
fn what_a_user_may_not_do_is_the_targets_trouble() {
    let kafka = kafka();
    let server = [
        ("bootstrap_servers", kafka.sasl_plaintext.as_str()),
        ("security_protocol", "sasl_plaintext"),
        ("sasl_mechanism", "PLAIN"),
    ];
    let reader = [("user", "reader"), ("password", "reader-secret")];
    let there = schema("not-for-readers");
    run(async {
        assert_eq!(plain(&kafka, &[]).prepare(&there).await, Ok(Prepared::Made));
        for schema in [&there, &schema("not-there-for-readers")] {
            let may_not =
                delivery_error(open(&server, &reader).expect("a target").prepare(schema).await);
            assert_eq!(
                (may_not.scope, may_not.sqlstate.as_str()),
                (ErrorScope::Target, "42501"),
                "{may_not:?}"
            );
            assert!(may_not.hint.is_some());
        }
        let may_not = delivery_error(
            open(&server, &reader).expect("a target").apply(&there, &[upsert(1, "a", 1)]).await,
        );
        // If a user may write to no topic, the error concerns the cluster or this topic, depending
        // on the first request.
        assert_eq!(may_not.sqlstate, "42501", "{may_not:?}");
        assert!(may_not.hint.is_some_and(|h| h.contains("Let the user")));
        let may_not =
            delivery_error(open(&server, &reader).expect("a target").remove(&there).await);
        assert_eq!(
            (may_not.scope, may_not.sqlstate.as_str()),
            (ErrorScope::Target, "42501"),
            "{may_not:?}"
        );
    });
    assert!(exists(&kafka, "not-for-readers"));
    assert_eq!(records(&kafka, "not-for-readers").len(), 0);
}

#[test]
fn options_are_checked() {
    let connector = targets::connector("coco_kafka").expect("the connector");
    for (name, bad) in [
        ("bootstrap_servers", "user:secret@host:9092"),
        ("bootstrap_servers", "/var/run/kafka"),
        ("security_protocol", "SSL"),
        ("sasl_mechanism", "GSSAPI"),
        ("sasl_mechanism", "OAUTHBEARER"),
        ("sslrootcert", "/etc/passwd"),
        ("sslcert", "/etc/passwd"),
        ("sslkey", "/etc/ssl/private/key.pem"),
        ("connect_timeout", "0"),
        ("request_timeout", "1.5"),
        ("delivery_timeout", "-1"),
        ("compression", "zstd"),
        ("linger", "60000"),
        ("max_message_bytes", "10"),
        ("password_required", "no"),
        ("partitions", "0"),
        ("replication_factor", "many"),
        ("cleanup_policy", "keep"),
        ("config", "{"),
    ] {
        let spec = connector.options.iter().find(|s| s.name == name).expect(name);
        assert!((spec.check)(bad).is_err_and(|why| !why.contains("secret")), "{name} {bad}");
    }
    // Settings of librdkafka that no user may set.
    let forbidden =
        ["plugin.library.paths", "ssl.ca.location", "ssl.key.location", "sasl.oauthbearer.config"];
    assert!(forbidden.iter().all(|f| connector.options.iter().all(|s| s.name != *f)));
    let secrets: Vec<&str> =
        connector.options.iter().filter(|s| s.secret).map(|s| s.name).collect();
    assert_eq!(secrets, ["password", "sslkey"]);
}

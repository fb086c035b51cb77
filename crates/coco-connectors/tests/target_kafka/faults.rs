//! Brokers that are absent, slow or end, and batches that arrive in part.

use std::time::Duration;

use coco_connectors::targets::Prepared;
use coco_core::change::ErrorScope;

use super::{
    apply, delete, delivery_error, key, many, none_is_left, open, plain, run, schema, upsert,
    values,
};
use crate::server::{self, exclusively, kafka};
use crate::topic::{contents, records};

#[test]
fn a_server_that_is_not_there_is_the_servers_trouble() {
    let dead = server::free_address();
    let schema = schema("nowhere");
    run(async {
        for address in [dead.as_str(), "no-such-host.invalid:9092"] {
            let server = [
                ("bootstrap_servers", address),
                ("request_timeout", "2"),
                ("delivery_timeout", "2"),
            ];
            let prepared =
                delivery_error(open(&server, &[]).expect("a target").prepare(&schema).await);
            let applied = delivery_error(
                open(&server, &[]).expect("a target").apply(&schema, &[upsert(1, "a", 1)]).await,
            );
            for error in [prepared, applied] {
                assert_eq!(
                    (error.scope, error.sqlstate.as_str()),
                    (ErrorScope::Server, "08006"),
                    "{error:?}"
                );
                // The lookup of a name may not have finished yet: the system decides how long it
                // takes.
                let detail = error.detail.unwrap_or_else(|| address.to_owned());
                assert!(detail.contains(address), "{detail}");
                assert!(address != dead || detail.contains("refused"), "{detail}");
            }
        }
    });
}

#[test]
fn a_server_that_was_down_goes_on_where_it_was() {
    let kafka = exclusively();
    let schema = schema("down");
    let before = many(0..100, "before", 1);
    let after = many(50..150, "after", 2);
    run(async {
        let mut target = plain(&kafka, &[("delivery_timeout", "5")]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &before).await, []);
        kafka.stop();
        let down = delivery_error(target.apply(&schema, &after).await);
        assert_eq!((down.scope, down.sqlstate.as_str()), (ErrorScope::Server, "08006"), "{down:?}");
        kafka.start();

        let mut target = plain(&kafka, &[]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Found));
        assert_eq!(apply(&mut *target, &schema, &after).await, []);
        // A short outage within the timeout has no effect.
        kafka.stop();
        let changes = [delete(0, 3)];
        let applying = async { apply(&mut *target, &schema, &changes).await };
        let starting = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            kafka.start();
        };
        assert_eq!(tokio::join!(applying, starting).0, []);
    });
    let mut now = values(&before);
    now.extend(values(&after));
    now.remove(&key(0));
    assert_eq!(contents(&kafka, "down"), now);
}

#[test]
fn a_slow_server_is_waited_for_as_long_as_was_said() {
    let kafka = exclusively();
    let schema = schema("slow");
    run(async {
        let mut target = plain(&kafka, &[("delivery_timeout", "15"), ("request_timeout", "15")]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &[upsert(1, "first", 1)]).await, []);
        // The records reach the server's machine, and the server reads them when it resumes.
        kafka.freeze();
        let late = delivery_error(target.apply(&schema, &many(0..1000, "late", 2)).await);
        assert_eq!((late.scope, late.sqlstate.as_str()), (ErrorScope::Server, "08006"), "{late:?}");
        let prepared =
            delivery_error(plain(&kafka, &[("request_timeout", "1")]).prepare(&schema).await);
        assert_eq!(
            (prepared.scope, prepared.sqlstate.as_str()),
            (ErrorScope::Server, "08006"),
            "{prepared:?}"
        );

        // A new producer starts before the server resumes. The server may read its requests before it
        // has executed all that the old one has sent, as the README says, so they are waited for.
        let mut target = plain(&kafka, &[]);
        let newer = many(0..1000, "newer", 3);
        let thawing = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            kafka.thaw();
        };
        assert_eq!(tokio::join!(target.prepare(&schema), thawing).0, Ok(Prepared::Found));
        let mut seen = records(&kafka, "slow").len();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = records(&kafka, "slow").len();
            if std::mem::replace(&mut seen, now) == now {
                break;
            }
        }
        assert_eq!(apply(&mut *target, &schema, &newer).await, []);
        assert_eq!(contents(&kafka, "slow"), values(&newer));

        // Within the timeout.
        kafka.freeze();
        let newest = many(0..1000, "newest", 4);
        let thawing = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            kafka.thaw();
        };
        assert_eq!(tokio::join!(apply(&mut *target, &schema, &newest), thawing).0, []);
        assert_eq!(contents(&kafka, "slow"), values(&newest));
    });
}

#[test]
fn a_batch_that_was_half_applied_is_applied_again() {
    let kafka = exclusively();
    let schema = schema("half");
    let changes = many(0..60_000, "a row of a batch that is cut off in the middle", 1);
    run(async {
        let mut target = plain(&kafka, &[("delivery_timeout", "5")]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        // Killed during a batch.
        let killing = async {
            while records(&kafka, "half").is_empty() {
                tokio::task::yield_now().await;
            }
        };
        let killed = tokio::select! {
            applied = target.apply(&schema, &changes) => Some(applied),
            () = killing => None,
        };
        // The next batch works in both cases: canceled in the middle, or completed before.
        drop((killed, target));
        kafka.kill();
        kafka.start();

        let mut target = plain(&kafka, &[]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Found));
        assert_eq!(apply(&mut *target, &schema, &changes).await, []);
        assert_eq!(contents(&kafka, "half"), values(&changes));
    });
}

/// A caller may stop waiting for a batch. Unsent records must not be sent later.
#[test]
fn a_batch_that_was_given_up_is_not_sent_later() {
    let kafka = exclusively();
    let schema = schema("given-up");
    run(async {
        let mut target = plain(&kafka, &[]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        kafka.stop();
        let waited = Duration::from_millis(500);
        let given_up =
            tokio::time::timeout(waited, target.apply(&schema, &[upsert(1, "old", 1)])).await;
        assert!(given_up.is_err());
        kafka.start();
        assert_eq!(
            apply(&mut *target, &schema, &[upsert(1, "new", 2), upsert(2, "new", 2)]).await,
            []
        );
    });
    assert_eq!(records(&kafka, "given-up").len(), 2);
}

/// Runs in a separate process, without the threads of other tests.
#[test]
fn a_client_is_quiet_takes_no_signals_and_ends_with_its_target() {
    if let Ok(addresses) = std::env::var("COCO_TEST_KAFKA_ALONE") {
        alone(&addresses);
        return;
    }
    let kafka = kafka();
    let name = "target_kafka::faults::a_client_is_quiet_takes_no_signals_and_ends_with_its_target";
    let child = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("COCO_TEST_KAFKA_ALONE", format!("{} {}", kafka.plaintext, kafka.sasl_plaintext))
        .output()
        .expect("a child");
    let stderr = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{stderr}");
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{child:?}");
    assert_eq!(stderr, "");
}

fn alone(addresses: &str) {
    let (plaintext, sasl) = addresses.split_once(' ').expect("two addresses");
    let dead = server::free_address();
    let schema = schema("alone");
    run(async {
        let mut target = open(&[("bootstrap_servers", plaintext)], &[]).expect("a target");
        target.prepare(&schema).await.expect("a topic");
        apply(&mut *target, &schema, &[upsert(1, "a", 1)]).await;
        let blocked = server::blocked_signals("rdk:");
        assert!(blocked.len() >= 2, "{blocked:?}");
        // All signals except the two that cannot be blocked, and the two of the C library.
        let all = !(1u64 << 8 | 1 << 18 | 1 << 31 | 1 << 32);
        assert!(blocked.iter().all(|(_, mask)| *mask == all), "{blocked:x?}");
        drop(target);
        none_is_left().await;

        let server = [
            ("bootstrap_servers", sasl),
            ("security_protocol", "sasl_plaintext"),
            ("sasl_mechanism", "PLAIN"),
        ];
        let user = [("user", "writer"), ("password", "wrong-secret")];
        delivery_error(open(&server, &user).expect("a target").prepare(&schema).await);
        let server = [("bootstrap_servers", dead.as_str()), ("request_timeout", "1")];
        let mut target = open(&server, &[]).expect("a target");
        delivery_error(target.prepare(&schema).await);
        none_is_left().await;
    });
}

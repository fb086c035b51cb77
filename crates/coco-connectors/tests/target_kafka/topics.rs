//! Topics: made, found, removed and lost.

use std::collections::BTreeMap;
use std::time::Duration;

use coco_connectors::targets::Prepared;
use coco_core::change::ErrorScope;
use serde_json::json;

use super::{apply, delivery_error, many, plain, run, schema, shape_with, upsert};
use crate::server::kafka;
use crate::topic::{self, contents, exists, setting};

#[test]
fn a_topic_is_made_as_it_is_declared() {
    let kafka = kafka();
    run(async {
        let declared = json!({"partitions": 4, "replication_factor": 1,
            "cleanup_policy": "compact,delete",
            "config": {"retention.ms": 86_400_000, "segment.ms": "3600000"}});
        let schema = shape_with("declared", declared);
        assert_eq!(plain(&kafka, &[]).prepare(&schema).await, Ok(Prepared::Made));
        // The brokers' defaults, except that the topic is compacted.
        let schema = shape_with("by-default", json!({}));
        assert_eq!(plain(&kafka, &[]).prepare(&schema).await, Ok(Prepared::Made));

        assert_eq!(setting(&kafka, "declared", "cleanup.policy").await, "compact,delete");
        assert_eq!(setting(&kafka, "declared", "retention.ms").await, "86400000");
        assert_eq!(setting(&kafka, "declared", "segment.ms").await, "3600000");
        assert_eq!(setting(&kafka, "by-default", "cleanup.policy").await, "compact");
    });
    assert_eq!(topic::partitions(&kafka, "declared"), 4);
    assert_eq!(topic::partitions(&kafka, "by-default"), 7);
}

#[test]
fn a_topic_that_is_found_must_be_as_it_is_declared() {
    let kafka = kafka();
    run(async {
        let made = shape_with("found", json!({"partitions": 2, "cleanup_policy": "compact"}));
        assert_eq!(plain(&kafka, &[]).prepare(&made).await, Ok(Prepared::Made));
        for fits in [json!({}), json!({"partitions": 2}), json!({"cleanup_policy": "compact"})] {
            let found = plain(&kafka, &[]).prepare(&shape_with("found", fits.clone())).await;
            assert_eq!(found, Ok(Prepared::Found), "{fits}");
        }
        for (differs, detail) in [
            (json!({"partitions": 3}), "Its partitions is 2, but 3 in"),
            (json!({"cleanup_policy": "delete"}), "Its cleanup_policy is compact, but delete in"),
        ] {
            let found = plain(&kafka, &[]).prepare(&shape_with("found", differs)).await;
            let error = delivery_error(found);
            assert_eq!(error.scope, ErrorScope::Target);
            assert!(error.detail.is_some_and(|d| d.contains(detail)));
        }
    });
}

#[test]
fn a_topic_that_cannot_be_made_is_the_targets_trouble() {
    let kafka = kafka();
    run(async {
        for (options, sqlstate) in [
            (json!({"replication_factor": 3}), "22023"),
            (json!({"config": {"no.such.setting": 1}}), "22023"),
            (json!({"config": {"retention.ms": "soon"}}), "22023"),
        ] {
            let prepared = plain(&kafka, &[]).prepare(&shape_with("never", options)).await;
            let error = delivery_error(prepared);
            assert_eq!((error.scope, error.sqlstate.as_str()), (ErrorScope::Target, sqlstate));
            assert!(error.hint.is_some());
        }
        let made = shape_with("clash.of.names", json!({}));
        assert_eq!(plain(&kafka, &[]).prepare(&made).await, Ok(Prepared::Made));
        let clash = delivery_error(
            plain(&kafka, &[]).prepare(&shape_with("clash_of_names", json!({}))).await,
        );
        assert_eq!((clash.scope, clash.sqlstate.as_str()), (ErrorScope::Target, "42602"));
    });
    assert!(!exists(&kafka, "never"));
}

#[test]
fn a_topic_is_removed_with_all_that_is_in_it() {
    let kafka = kafka();
    let schema = schema("removed");
    run(async {
        let mut target = plain(&kafka, &[]);
        // This server creates topics on request of a client.
        assert_eq!(target.exists(&schema).await, Ok(false));
        assert!(!exists(&kafka, "removed"));
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(target.exists(&schema).await, Ok(true));
        assert_eq!(apply(&mut *target, &schema, &many(0..10, "a", 1)).await, []);
        assert_eq!(target.remove(&schema).await, Ok(()));
        assert!(!exists(&kafka, "removed"));
        assert_eq!(plain(&kafka, &[]).exists(&schema).await, Ok(false));
        // Removing a missing topic is not an error, and a recreated topic is empty.
        assert_eq!(target.remove(&schema).await, Ok(()));
        assert_eq!(plain(&kafka, &[]).remove(&schema).await, Ok(()));
        assert_eq!(plain(&kafka, &[]).prepare(&schema).await, Ok(Prepared::Made));
    });
    assert_eq!(contents(&kafka, "removed"), BTreeMap::new());
}

/// This server creates topics on request of a client, with seven partitions and without compaction.
#[test]
fn a_topic_that_was_lost_is_not_made_by_sending() {
    let kafka = kafka();
    let schema = schema("lost");
    run(async {
        let mut target = plain(&kafka, &[("delivery_timeout", "10")]);
        assert_eq!(target.prepare(&schema).await, Ok(Prepared::Made));
        assert_eq!(apply(&mut *target, &schema, &[upsert(1, "a", 1)]).await, []);
        assert_eq!(plain(&kafka, &[]).remove(&schema).await, Ok(()));
        // The broker answers the request to remove a topic a moment before its partitions refuse records.
        let mut sent = target.apply(&schema, &[upsert(2, "b", 2)]).await;
        for _ in 0..200 {
            if sent.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            sent = target.apply(&schema, &[upsert(2, "b", 2)]).await;
        }
        let lost = delivery_error(sent);
        assert_eq!((lost.scope, lost.sqlstate.as_str()), (ErrorScope::Target, "HV00R"), "{lost:?}");
        assert!(!exists(&kafka, "lost"));
        // The next attempt finds that the topic is missing.
        assert_eq!(plain(&kafka, &[]).prepare(&schema).await, Ok(Prepared::Made));
    });
}

//! Rows that the receiver rejects, by name or with all others of a request.

use super::{Webhook, delete, places, rows, upsert, upserts};
use crate::http::Receiver;

#[test]
fn rows_that_are_refused_by_name_are_reported_at_their_places() {
    let receiver = Receiver::start();
    receiver.refuse(200, "bad");
    let mut changes = upserts(10);
    for place in [0, 4, 9] {
        changes[place] = upsert(place, "bad", 1);
    }
    let mut webhook = Webhook::with(&receiver, &[("batch_size", "4")], &[]);
    let rejected = webhook.apply(&changes).expect("the others arrive");
    assert_eq!(places(&rejected), [0, 4, 9]);
    assert!(rejected.iter().all(|r| r.message == "not that one"), "{rejected:?}");
    assert_eq!((rows(&receiver).len(), receiver.requests().len()), (7, 3));
    receiver.refuse_nothing();
    webhook.deliver(&changes);
    assert_eq!(rows(&receiver).len(), 10);
}

#[test]
fn rows_that_are_refused_with_all_others_are_found() {
    let receiver = Receiver::start();
    for (status, sqlstate) in [(400, "22000"), (409, "23000"), (422, "22000")] {
        receiver.refuse(status, "bad");
        receiver.forget_requests();
        let mut changes = upserts(100);
        for place in [0, 50, 51, 99] {
            changes[place] = upsert(place, "bad", 1);
        }
        changes.push(delete(1000, 1));
        let rejected = Webhook::open(&receiver).apply(&changes).expect("the others arrive");
        assert_eq!(places(&rejected), [0, 50, 51, 99]);
        for row in &rejected {
            assert_eq!(row.sqlstate, sqlstate);
            assert!(row.message.contains(&status.to_string()), "{}", row.message);
            assert!(row.message.ends_with("one of them is bad"), "{}", row.message);
        }
        assert_eq!(rows(&receiver).len(), 96);
        let requests = receiver.requests().len();
        assert!(requests < 60, "{requests} requests");
    }
}

#[test]
fn all_rows_can_be_refused() {
    let receiver = Receiver::start();
    receiver.refuse(422, "id");
    let rejected = Webhook::open(&receiver).apply(&upserts(7)).expect("no trouble");
    assert_eq!(places(&rejected), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(rows(&receiver).len(), 0);
}

#[test]
fn what_is_too_large_for_one_request_comes_in_several() {
    let receiver = Receiver::start();
    receiver.largest(2000);
    let mut changes = upserts(100);
    changes[42] = upsert(42, &"x".repeat(2000), 1);
    let rejected = Webhook::open(&receiver).apply(&changes).expect("the others arrive");
    assert_eq!((places(&rejected), rejected[0].sqlstate.as_str()), (vec![42], "54000"));
    assert_eq!(rows(&receiver).len(), 99);
}

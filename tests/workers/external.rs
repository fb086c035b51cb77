//! Targets outside this database, as users see them: what is sent, and what becomes of it when things
//! go wrong. The other side is a webhook, which shows every request, and another database.
#![cfg(all(feature = "http", feature = "postgres"))]

mod declared;
mod interrupted;
mod made;
mod rejected;
mod sent;

use crate::http::Receiver;

/// What the changes of all requests since the last look did: upserts and deletions by key.
fn sent(receiver: &Receiver) -> (Vec<String>, Vec<String>) {
    let (mut upserts, mut deletes) = (vec![], vec![]);
    for request in receiver.requests() {
        let body: serde_json::Value = serde_json::from_str(&request.body).expect("JSON");
        for change in body["changes"].as_array().into_iter().flatten() {
            match change["op"].as_str() {
                Some("upsert") => upserts.push(change["key"].to_string()),
                _ => deletes.push(change["key"].to_string()),
            }
        }
    }
    receiver.forget_requests();
    (upserts, deletes)
}

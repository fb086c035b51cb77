//! A flow for each tenant, declared, changed and dropped by a migration that is run again.

use super::{CATALOG, Hearing, rows, run};
use crate::support::TestDb;

/// The migration of all tenants, with this query for a title.
fn migration(tenants: usize, title: &str) -> String {
    let each = (1..=tenants).map(|n| {
        format!(
            "create schema if not exists tenant_{n};
             create table if not exists tenant_{n}.documents (id int primary key, title text not null);
             select coco.create_flow('tenant_{n}', or_replace => true,
               source => 'tenant_{n}.documents',
               query => $$ select id, {title} as title from tenant_{n}.documents $$,
               target => 'tenant_{n}.titles', key => '{{id}}');"
        )
    });
    each.collect()
}

/// `COCO_TENANTS` says how many (`make soak` takes 200).
#[test]
fn flows_of_tenants_are_declared_changed_and_dropped_again_and_again() {
    let tenants = std::env::var("COCO_TENANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let mut db = TestDb::new("tenants");
    let mut session = Hearing::new(&db);
    for (title, expected) in [("upper(title)", "ONE"), ("lower(title)", "one")] {
        let migration = migration(tenants, title);
        session.run(&migration);
        for n in 1..=tenants {
            let insert =
                "insert into tenant_{n}.documents values (1, 'One') on conflict do nothing";
            run(&mut db.client, &insert.replace("{n}", &n.to_string()));
            assert_eq!(db.update(&format!("tenant_{n}"), "normal")[0].upserted, 1);
            let title = format!("select title from tenant_{n}.titles");
            assert_eq!(rows(&mut db.client, &title), [expected]);
        }
        let before = rows(&mut db.client, CATALOG);
        for _ in 0..2 {
            let said = session.run(&migration);
            assert!(said.iter().all(|s| s.ends_with("skipping")), "{said:?}");
            assert_eq!(rows(&mut db.client, CATALOG), before);
        }
    }
    let drops: String = (1..=tenants)
        .map(|n| format!("select coco.drop_flow('tenant_{n}', false, if_exists => true);"))
        .collect();
    session.run(&drops);
    assert!(rows(&mut db.client, CATALOG).is_empty());
    for _ in 0..2 {
        let said = session.run(&drops);
        assert_eq!(said.len(), tenants);
        assert!(said.iter().all(|s| s.ends_with("does not exist, skipping")), "{said:?}");
    }
}

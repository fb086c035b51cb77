//! Memory: flat in the size of the source.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::TestDb;

/// Memory of a process that is its own, in kB; shared buffers are not.
#[cfg(target_os = "linux")]
fn own_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// The peak of the backend that updates `items` items for the first time, and then updates all of
/// them again.
#[cfg(target_os = "linux")]
fn peak(items: i32) -> u64 {
    let mut db = TestDb::new(&format!("memory_{items}"));
    db.run(&format!(
        "create table d (id int primary key, body text);
         insert into d select i, repeat('x', 200) || i from generate_series(1, {items}) i;
         select coco.create_flow('covered', 'd', 'select id, body from d', 'c', '{{id}}');
         select coco.create_flow('listed', 'd', 'select md5(body) as h, id from d', 'l', '{{h}}');
         create function low(t text) returns text language plpgsql as 'begin return lower(t); end';
         select coco.memoize('low(text)');
         select coco.create_flow('memoized', 'd', 'select id, low(body) as body from d', 'm', '{{id}}')"
    ));
    let mut client = db.connect();
    // Small enough that the plans of both sizes need all of it.
    client.batch_execute("set work_mem = '1MB'").unwrap();
    let pid: i32 = client.query_one("select pg_backend_pid()", &[]).unwrap().get(0);
    let done = Arc::new(AtomicBool::new(false));
    let stop = done.clone();
    let watch = std::thread::spawn(move || {
        let mut peak = 0;
        while !stop.load(Ordering::Relaxed) {
            peak = peak.max(own_memory(pid));
            std::thread::sleep(Duration::from_millis(2));
        }
        peak
    });
    for mode in ["normal", "full_reprocess"] {
        for flow in ["covered", "listed", "memoized"] {
            let counts = support::update(&mut client, flow, mode)
                .unwrap_or_else(|e| panic!("{flow}: {}", support::explain(&e)));
            assert_eq!(counts[0].evaluated, i64::from(items));
        }
    }
    // All of them changed: noted, and followed.
    client.batch_execute("update d set body = body || 'x'").unwrap();
    for flow in ["covered", "listed", "memoized"] {
        let counts = support::update(&mut client, flow, "normal")
            .unwrap_or_else(|e| panic!("{flow}: {}", support::explain(&e)));
        assert_eq!(counts[0].upserted, i64::from(items));
    }
    done.store(true, Ordering::Relaxed);
    watch.join().expect("the watch ends")
}

#[test]
#[cfg(target_os = "linux")]
fn ten_times_the_items_take_the_same_memory() {
    let (small, large) = (peak(30_000), peak(300_000));
    println!(
        "peak memory of the updating backend: {small} kB of 30,000 items, {large} kB of 300,000"
    );
    assert!(small > 1000, "the backend was seen: {small} kB");
    assert!(large < small + 4 * 1024, "{large} kB of ten times the items, {small} kB before");
}

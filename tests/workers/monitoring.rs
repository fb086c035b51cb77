//! coco.metrics, and what examples/monitoring makes of it: an exporter, Prometheus, its alerts, and the
//! queries of the dashboard.

use crate::{scripted, support};

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use postgres::Client;
use scripted::{Scripted, said_of};
use serde_json::Value;
use support::{TestDb, explain};

fn file(name: &str) -> String {
    let path = format!("{}/examples/monitoring/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The values of a metric by flow and name.
fn metric(client: &mut Client, metric: &str) -> BTreeMap<(String, String), f64> {
    let sql =
        "select coalesce(flow, ''), coalesce(name, ''), value from coco.metrics where metric = $1";
    let rows = client.query(sql, &[&metric]).unwrap_or_else(|e| panic!("{}", explain(&e)));
    rows.iter().map(|r| ((r.get(0), r.get(1)), r.get(2))).collect()
}

fn of_flow(client: &mut Client, name: &str, flow: &str) -> Option<f64> {
    let values = metric(client, name);
    values.into_iter().find(|((f, _), _)| f == flow).map(|(_, value)| value)
}

/// A flow with a memoized function, one with an item that fails, one to a server that is not there.
fn flows(db: &mut TestDb) {
    db.run(
        "create table docs (id int primary key, body text);
         insert into docs select i, md5(i::text) from generate_series(1, 100) i;
         create function dear(t text) returns text language sql immutable as 'select upper(t)';
         select coco.memoize('dear(text)');
         select coco.create_flow('one', 'docs', 'select id, dear(body) as body from docs', 'upper', '{id}');
         select coco.create_flow('two', 'upper', 'select id, 1 / (id - 7) as x from upper', 'last', '{id}');
         create server away foreign data wrapper coco_http options (url 'http://127.0.0.1:1/');
         select coco.create_flow('three', 'upper', 'select id, body from upper', 'hook', '{id}', server => 'away')",
    );
}

#[test]
fn alerts_and_the_dashboard_name_states_that_a_flow_can_have() {
    let db = TestDb::new("metrics_states");
    let view = db.connect().query_one("select pg_get_viewdef('coco.status_detail'::regclass)", &[]);
    let view: String = view.unwrap_or_else(|e| panic!("{}", explain(&e))).get(0);
    for name in ["alerts.yml", "grafana-dashboard.json"] {
        let text = file(name);
        let conditions: Vec<&str> = text.split("state!~").skip(1).collect();
        assert!(!conditions.is_empty(), "{name}");
        for condition in conditions {
            let states = condition.trim_start_matches(['\\', '"']);
            let states = states.split(['\\', '"']).next().unwrap_or_default();
            for state in states.split('|') {
                assert!(view.contains(&format!("'{state}'::text")), "{name}: {state}");
            }
        }
    }
}

#[test]
fn counters_last_whatever_is_dropped_of_the_history() {
    let mut db = TestDb::new("metrics_totals");
    flows(&mut db);
    let mut evaluated = 0;
    let mut failed = 0;
    for (n, size) in [1000, 2, 2, 0, 0, 1, 1000].iter().enumerate() {
        db.run(&format!("set coco.history_limit = {size}"));
        db.run(&format!("update docs set body = 'x{n}' where id <= {}", n + 1));
        evaluated += db.update("one", "normal")[0].evaluated;
        failed += db.update("two", "normal")[0].failed;
        let runs = n as f64 + 1.0;
        let c = &mut db.client;
        assert_eq!(of_flow(c, "coco_flow_runs_total", "one"), Some(runs), "after run {n}");
        assert_eq!(of_flow(c, "coco_flow_items_evaluated_total", "one"), Some(evaluated as f64));
        assert_eq!(of_flow(c, "coco_flow_items_failed_total", "two"), Some(failed as f64));
    }
    let kept: i64 =
        db.client.query_one("select count(*) from coco.history('one')", &[]).unwrap().get(0);
    assert!(kept < 4, "{kept}");
    let c = &mut db.client;
    assert_eq!(of_flow(c, "coco_flow_rows_upserted_total", "one"), Some(evaluated as f64));
    assert_eq!(of_flow(c, "coco_flow_failing_items", "two"), Some(1.0));
    assert_eq!(metric(c, "coco_flow_state")[&("two".to_owned(), "degraded".to_owned())], 1.0);
    let dear = ("one".to_owned(), "public.dear(text)".to_owned());
    assert_eq!(metric(c, "coco_function_calls_total")[&dear], evaluated as f64);
    db.run("select coco.start('one')");
    assert_eq!(of_flow(&mut db.client, "coco_flow_live", "one"), Some(1.0));
    // No worker is needed for it, and none is missed.
    db.run("select coco.alter_flow('one', paused => true)");
    assert_eq!(of_flow(&mut db.client, "coco_flow_live", "one"), Some(0.0));
    // It ends with the flow.
    db.run("select coco.drop_flow('two')");
    assert_eq!(of_flow(&mut db.client, "coco_flow_runs_total", "two"), None);
}

#[test]
fn no_table_is_read_as_a_whole() {
    let mut db = TestDb::new("metrics_cheap");
    flows(&mut db);
    db.run(
        "insert into docs select i, md5(i::text) from generate_series(101, 20000) i;
         select coco.update('one')",
    );
    db.run("analyze");
    // A session of its own: what one has read and not reported yet counts, of earlier transactions too.
    let mut client = db.connect();
    let mut transaction = client.transaction().unwrap();
    transaction.query("select * from coco.metrics", &[]).unwrap();
    let read = "select relname::text, seq_tup_read from pg_stat_xact_user_tables
                 where seq_tup_read > 1000 and schemaname in ('public', 'coco')";
    let rows = transaction.query(read, &[]).unwrap();
    let read: Vec<(String, i64)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    assert!(read.is_empty(), "{read:?}");
}

#[test]
fn whoever_may_read_statistics_sees_numbers_and_no_contents() {
    let mut db = TestDb::new("metrics_rights");
    for role in ["coco_metrics_owner", "coco_metrics_other", "coco_metrics_monitor"] {
        db.run(&format!(
            "do $$ begin create role {role} login; exception when duplicate_object or unique_violation then null; end $$;
             grant usage on schema coco to {role}"
        ));
    }
    db.run("grant pg_monitor to coco_metrics_monitor; create schema mine authorization coco_metrics_owner");
    let mut owner = db.connect_as("coco_metrics_owner");
    owner
        .batch_execute(
            "set search_path = mine; create table d (id int primary key); insert into d values (0), (1);
             select coco.create_flow('mine', 'd', 'select id, 1 / id as x from d', 't', '{id}');
             select coco.update('mine')",
        )
        .unwrap_or_else(|e| panic!("{}", explain(&e)));
    let names = "select string_agg(distinct metric || ' ' || value, ', ') from coco.metrics where metric = 'coco_flow_failing_items'";
    let seen = |role: &str| -> Option<String> {
        db.connect_as(role)
            .query_one(names, &[])
            .unwrap_or_else(|e| panic!("{}", explain(&e)))
            .get(0)
    };
    let one = Some("coco_flow_failing_items 1".to_owned());
    assert_eq!(seen("coco_metrics_owner"), one);
    assert_eq!(seen("coco_metrics_other"), None);
    assert_eq!(seen("coco_metrics_monitor"), one);
    let mut monitor = db.connect_as("coco_metrics_monitor");
    for view in ["flows", "errors", "tracking", "status"] {
        let count = format!("select count(*) from coco.{view}");
        assert_eq!(monitor.query_one(&count, &[]).unwrap().get::<_, i64>(0), 0, "{view}");
    }
    // A log is seen by whose flow follows it.
    let log = |role: &str| metric(&mut db.connect_as(role), "coco_log_bytes").len();
    assert_eq!(
        [log("coco_metrics_owner"), log("coco_metrics_other"), log("coco_metrics_monitor")],
        [1, 0, 1]
    );
    let of_all = "select * from coco_internal.metric_rows('all')";
    let e = monitor.query(of_all, &[]).expect_err("nobody may use the schema");
    assert_eq!(e.code().map(|c| c.code()), Some("42501"), "{}", explain(&e));
    let e = db.client.query(of_all, &[]).expect_err("no such scope");
    assert_eq!(e.code().map(|c| c.code()), Some("22023"), "{}", explain(&e));
}

/// What an HTTP server of this machine answers.
fn get(url: &str) -> String {
    let (host, path) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, ""));
    let mut stream = TcpStream::connect(host).unwrap_or_else(|e| panic!("{url}: {e}"));
    let request = format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap_or_else(|e| panic!("{url}: {e}"));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|e| panic!("{url}: {e}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    assert!(head.contains(" 200 "), "{url}: {answer}");
    body.to_owned()
}

fn json(url: &str) -> Value {
    let body = get(url);
    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{url}: {e}: {body}"))
}

fn encoded(text: &str) -> String {
    let byte = |b: u8| match b {
        b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Asks again until there is an answer; tells what it asked for where there is none for minutes.
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(180), "{what} never came");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The queries of the dashboard's panels, for all flows.
fn panel_queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&file("grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut queries = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().expect("targets") {
            let expr = target["expr"].as_str().expect("an expression");
            let expr = expr.replace("$flow", ".*").replace("$__rate_interval", "30s");
            queries.push((panel["title"].to_string(), expr));
        }
    }
    queries
}

#[test]
fn an_exporter_prometheus_and_the_dashboard_show_what_there_is() {
    let mut db = TestDb::new("metrics_scraped");
    flows(&mut db);
    db.run("drop role if exists coco_exporter");
    db.run(&file("role.sql"));
    db.update("one", "normal");
    db.update("two", "normal");
    // Without it, the number of items is not known.
    db.run("analyze");
    db.run("select coco.start('three')");
    let url = db.url();
    let there: Vec<&str> = url.split_whitespace().filter(|p| !p.starts_with("user=")).collect();
    let dsn = format!("{} user=coco_exporter sslmode=disable", there.join(" "));
    let servers = Scripted::new("monitoring");
    let said = servers.run("start", &[&std::process::id().to_string(), &dsn]);
    let (exporter, prometheus) = (said_of(&said, "exporter"), said_of(&said, "prometheus"));

    // Of every metric there is what the view says. Its role sees all flows.
    let mut client = db.connect_as("coco_exporter");
    let rows = "select metric, coalesce(flow, ''), coalesce(name, ''), coalesce(server, ''), value from coco.metrics";
    let rows = client.query(rows, &[]).unwrap_or_else(|e| panic!("{}", explain(&e)));
    assert!(rows.len() > 50, "{}", rows.len());
    let scraped = get(&format!("{exporter}/metrics"));
    for row in &rows {
        let metric: String = row.get(0);
        let labels: Vec<String> =
            (1..4).map(|n| row.get::<_, String>(n)).filter(|l| !l.is_empty()).collect();
        let lines = scraped.lines().filter(|l| l.split(['{', ' ']).next() == Some(metric.as_str()));
        let mut lines =
            lines.filter(|l| labels.iter().all(|label| l.contains(&format!("=\"{label}\""))));
        let line = lines.next().unwrap_or_else(|| panic!("no {metric} {labels:?} in {scraped}"));
        let value = line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok());
        if labels.first().is_some_and(|flow| flow != "three") && metric.ends_with("_total") {
            assert_eq!(value, Some(row.get::<_, f64>(4)), "{line}");
        }
    }

    let query = |expr: &str| {
        let answer = json(&format!("{prometheus}/api/v1/query?query={}", encoded(expr)));
        assert_eq!(answer["status"], "success", "{expr}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    };
    let queries = panel_queries();
    assert!(queries.len() > 20);
    for (panel, expr) in &queries {
        wait_for(&format!("data of panel {panel}: {expr}"), || {
            let found = !query(expr).is_empty();
            // Rates are of what goes on.
            db.run("update docs set body = body || 'x' where id <= 5; select coco.update('one')");
            found.then_some(())
        });
    }
    let failing = query("coco_flow_failing_items == 1");
    assert_eq!(failing.len(), 1);
    assert_eq!(failing[0]["metric"]["flow"], "two");

    // The alerts are loaded, and evaluated.
    let states = wait_for("an evaluation of all alerts", || {
        let rules = json(&format!("{prometheus}/api/v1/rules"));
        let rules = rules["data"]["groups"][0]["rules"].as_array()?.clone();
        rules.iter().all(|r| r["health"] == "ok").then(|| {
            rules
                .iter()
                .map(|r| (r["name"].to_string(), r["state"].to_string()))
                .collect::<BTreeMap<_, _>>()
        })
    });
    assert_eq!(states.len(), 8, "{states:?}");
    assert_eq!(states["\"CocoFlowFailing\""], "\"pending\"");
    assert_eq!(states["\"CocoLogGrowing\""], "\"inactive\"");
}

#[test]
fn alerts_fire_when_they_should() {
    let servers = Scripted::new("monitoring");
    let said = servers.run("promtool", &["test", "rules", "alerts_test.yml"]);
    assert!(said.contains("SUCCESS"), "{said}");
    servers.run("promtool", &["check", "config", "prometheus.yml"]);
    let rules = file("alerts.yml");
    let tested = file("alerts_test.yml");
    let alerts: Vec<&str> =
        rules.lines().filter_map(|l| l.trim().strip_prefix("- alert: ")).collect();
    assert!(!alerts.is_empty());
    let untested: Vec<&&str> =
        alerts.iter().filter(|a| !tested.contains(&format!("alertname: {a}\n"))).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn the_dashboard_is_what_grafanas_schema_says() {
    let root = env!("CARGO_MANIFEST_DIR");
    let check = Command::new(format!("{root}/scripts/grafana.sh"))
        .arg(format!("{root}/examples/monitoring/grafana-dashboard.json"))
        .output()
        .expect("scripts/grafana.sh runs");
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{said}{}", String::from_utf8_lossy(&check.stderr));
}

/// The values of a key in the collector's file, in their order.
fn collected<'a>(collector: &'a str, key: &str) -> Vec<&'a str> {
    let values =
        collector.lines().filter_map(|l| l.trim_start_matches([' ', '-']).strip_prefix(key));
    values.map(|v| v.trim().trim_matches('"')).collect()
}

#[test]
fn the_collector_of_sql_exporter_has_every_metric() {
    let mut db = TestDb::new("metrics_collector");
    flows(&mut db);
    let collector = file("coco.collector.yml");
    let names = collected(&collector, "metric_name:");
    let (types, helps) = (collected(&collector, "type:"), collected(&collector, "help:"));
    assert_eq!((types.len(), helps.len()), (names.len(), names.len()));
    db.update("one", "normal");
    let rows =
        db.client.query("select distinct metric, type, help from coco.metrics", &[]).unwrap();
    assert!(rows.len() > 25, "{}", rows.len());
    for row in &rows {
        let (metric, kind, help): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let at = names.iter().position(|n| *n == metric).unwrap_or_else(|| panic!("no {metric}"));
        assert_eq!((types[at], helps[at]), (kind.as_str(), help.as_str()), "{metric}");
    }
    let other = file("postgres_exporter.queries.yml");
    let asked = |text: &str| -> BTreeSet<String> {
        let parts = text.split("metric = '").skip(1);
        parts.filter_map(|p| p.split('\'').next().map(str::to_owned)).collect()
    };
    let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
    assert_eq!(asked(&collector), names);
    assert_eq!(asked(&other), names);
    // Its queries are statements that give these columns.
    for query in collector.split("query: |\n").skip(1) {
        let query = query.split("  - query_name:").next().unwrap_or_default();
        db.client.query(query, &[]).unwrap_or_else(|e| panic!("{query}: {}", explain(&e)));
    }
}

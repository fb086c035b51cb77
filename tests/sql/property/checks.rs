//! What an update did, held against the model, the plain query and `coco.verify`.

use std::collections::HashMap;

use super::statements::{literal, quoted};
use super::{Known, Rows, Run};
use crate::support::{self, Counts};

impl Run {
    /// Updates a flow and holds it against the model and the plain query.
    pub(super) fn check(&mut self, at: usize) {
        let flow = &self.shape.flows[at];
        let mode = match self.rng.usize(0..30) {
            0 => "full_reprocess",
            1 => "reexport",
            2 => "retry",
            _ => "normal",
        };
        let present = self.items(at);
        let before = self.targets(at);
        let previewed = (self.rng.usize(0..5) == 0).then(|| self.preview(flow.name, mode));

        let counts = self.update(flow.name, mode);
        let after = self.targets(at);
        self.hold_target(at);
        self.hold_verify(flow.name);

        let logic = self.logic_of(at);
        let same_logic = self.known[at].logic.as_ref() == Some(&logic);
        let all = !same_logic || matches!(mode, "full_reprocess" | "reexport");
        for (n, c) in counts.iter().enumerate() {
            let empty = HashMap::new();
            let last = self.known[at].items.get(n).unwrap_or(&empty);
            let changed = present[n].iter().filter(|(k, v)| last.get(*k) != Some(v)).count();
            let seen = present[n].len() as i64;
            let expected = if all { seen } else { changed as i64 };
            // Where a table was altered and altered back, evaluating everything may be needed.
            let free = flow.contested || (self.logic.reset[at] && c.evaluated == seen);
            self.hold(c.evaluated == expected || free, || {
                format!("{mode} should evaluate {expected} items of {}: {c:?}", c.source)
            });
            let adds_up = c.seen == c.skipped + c.unchanged + c.evaluated;
            // Of a captured source, those that changed are looked at, if only in what is not used.
            let looked = c.seen == seen || self.captured && c.seen < seen && c.seen >= expected;
            self.hold(looked && (adds_up || flow.contested), || {
                format!("{seen} items are in {}: {c:?}", c.source)
            });
            self.hold(c.failed == 0 || flow.contested, || format!("nothing can fail: {c:?}"));
        }
        let (upserted, deleted) = sum(&counts);
        let written = match mode {
            // Of items that are refused, what stays is not written.
            "reexport" if !flow.contested => after.iter().map(Rows::len).sum::<usize>() as i64,
            _ => written(&before, &after),
        };
        let gone = written_away(&before, &after);
        // A key that goes from one item to another is deleted and inserted.
        let moved = flow.contested && upserted >= written && deleted >= gone;
        self.hold((upserted, deleted) == (written, gone) || moved, || {
            format!("{mode} should upsert {written} rows and delete {gone}: {counts:?}")
        });
        if let Some((put, removed)) = previewed.filter(|_| !flow.contested) {
            self.hold((put, removed) == (upserted, deleted), || {
                format!("preview said {put} and {removed}, {mode} did {counts:?}")
            });
        }
        self.known[at] = Known { logic: Some(logic), items: present };
        self.logic.reset[at] = false;

        let again = self.update(flow.name, "normal");
        let evaluated: i64 = again.iter().map(|c| c.evaluated).sum();
        let idle = (evaluated == 0 || flow.contested) && sum(&again) == (0, 0);
        self.hold(idle, || format!("a second update has nothing to do: {again:?}"));
        if self.captured && !self.open && !flow.contested {
            let unseen = again.iter().all(|c| c.seen == 0);
            self.hold(unseen, || format!("a second update has nothing to look at: {again:?}"));
        }
        if self.rng.usize(0..12) == 0 && !flow.contested {
            self.damage_and_repair(at);
        }
    }

    /// Rows that somebody deleted are missed, and come back.
    fn damage_and_repair(&mut self, at: usize) {
        let flow = &self.shape.flows[at];
        let before = self.targets(at);
        let salt = self.rng.u32(..);
        let target = flow.targets[0].name;
        self.execute(&format!(
            "delete from {target} as t where hashtext(t::text || '{salt}') % 3 = 0"
        ));
        let lost = written_away(&before, &self.targets(at)) as usize;
        for repair in [false, true] {
            self.log.push(format!("select * from coco.verify({}, {repair});", literal(flow.name)));
            let found = support::verify(&mut self.db.client, flow.name, repair);
            let found = self.must(found);
            let missing = found.iter().filter(|f| f.contains(" missing ")).count();
            self.hold((found.len(), missing) == (lost, lost), || {
                format!("{lost} rows of {target} are missing, verify({repair}) finds {found:?}")
            });
        }
        let after = self.targets(at);
        self.hold(before == after, || "a repair should bring back what was there".to_owned());
        self.hold_verify(flow.name);
    }

    /// The target holds what the query gives over the tables themselves. Of a flow whose items
    /// may refuse each other: over those that were not refused, and each that was is so for a
    /// key which another one has.
    fn hold_target(&mut self, at: usize) {
        let flow = &self.shape.flows[at];
        for (target, query) in flow.targets.iter().zip(self.logic.queries[at].clone()) {
            let query = target.queries[query].sql;
            let prepared = self.db.client.prepare(query);
            let prepared = self.must(prepared);
            let columns: Vec<String> =
                prepared.columns().iter().map(|c| format!("t.{}", quoted(c.name()))).collect();
            let columns = columns.join(", ");
            let stored =
                self.db.client.prepare(&format!("select {columns} from {} t", target.name));
            let stored = self.must(stored);
            for (a, b) in prepared.columns().iter().zip(stored.columns()) {
                self.hold(a.type_() == b.type_(), || {
                    format!("column {} of {} is {}", b.name(), target.name, b.type_())
                });
            }
            let refused = "in (select (source_key->>'id')::int from coco.errors)";
            let healthy = match flow.contested {
                true => format!("where t.id not {refused}"),
                false => String::new(),
            };
            let have = format!("select row({columns})::text as r from {} t {healthy}", target.name);
            let all = format!("(\n{query}\n) t");
            let want = format!("select row({columns})::text as r from {all} {healthy}");
            let differ = self.texts(&format!(
                "(select 'missing ' || r from ({want} except all {have}) d order by 1 limit 20)
                 union all
                 (select 'extra ' || r from ({have} except all {want}) d order by 1 limit 20)"
            ));
            self.hold(differ.is_empty(), || {
                format!("{} is not its query:\n{}", target.name, differ.join("\n"))
            });
            if flow.contested {
                let key = target.key[0];
                let idle = self.texts(&format!(
                    "select id::text from {all} where id {refused} group by id
                     having not bool_or(exists (select from {} o where o.id <> t.id
                                                   and o.{key} = t.{key}))",
                    target.name
                ));
                self.hold(idle.is_empty(), || {
                    format!("items {idle:?} are refused, yet no other has their keys")
                });
            }
        }
    }

    fn hold_verify(&mut self, flow: &str) {
        let found = support::verify(&mut self.db.client, flow, false);
        let found = self.must(found);
        self.hold(found.is_empty(), || format!("coco.verify of {flow}:\n{}", found.join("\n")));
    }
}

fn sum(counts: &[Counts]) -> (i64, i64) {
    (counts.iter().map(|c| c.upserted).sum(), counts.iter().map(|c| c.deleted).sum())
}

/// Rows that are new or another.
fn written(before: &[Rows], after: &[Rows]) -> i64 {
    let pairs = before.iter().zip(after);
    pairs.map(|(b, a)| a.iter().filter(|(k, v)| b.get(*k) != Some(v)).count() as i64).sum()
}

/// Rows that are there no longer.
fn written_away(before: &[Rows], after: &[Rows]) -> i64 {
    let pairs = before.iter().zip(after);
    pairs.map(|(b, a)| b.keys().filter(|k| !a.contains_key(*k)).count() as i64).sum()
}

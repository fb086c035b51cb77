//! A small model of a flow that follows a lookup: two writers and a worker in any order, and an end
//! of the worker at each step. `src/update/source_pass.rs`, `lookups.rs` and `backlog.rs` process
//! sets of rows; the model has one item that looks up one row. A transaction may leave work over,
//! because others' changes fill it, or set work aside. The model tries every possibility.
//!
//! Each part of the rule can be switched off. The model then finds the change that is lost without
//! it.

use std::collections::HashSet;

use super::decision::{Decision, Mode, decide};
use super::version::{CommittedVersion, Fingerprint, LogicId, SourceVersion};

/// The rule that keeps changes of a lookup from being lost.
#[derive(Clone, Copy, Debug)]
struct Rule {
    /// The worker follows lookups, reads the source and evaluates items under one snapshot.
    one_snapshot: bool,
    /// A truncated cursor is marked as behind, and entries after it count as changed.
    marks_behind: bool,
    /// Items that are set aside are marked on disk.
    marks_items: bool,
    /// The worker follows lookups with each slice. If a lookup changed, it follows the source, too.
    follows_together: bool,
    /// Helpers evaluate items under a later snapshot.
    helpers: bool,
}

const RULE: Rule = Rule {
    one_snapshot: true,
    marks_behind: true,
    marks_items: true,
    follows_together: true,
    helpers: false,
};

/// The first version of the rule: an evaluation is no older than the followed part of the lookups.
const OLD: Rule = Rule {
    one_snapshot: false,
    marks_behind: false,
    marks_items: false,
    follows_together: false,
    helpers: true,
};

/// An item: deleted, or of author 1 or 2. `Other` differs from `First` in a column that is not
/// looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Item {
    Gone,
    First,
    Other,
    Second,
}

use Item::{First, Gone, Other, Second};

/// The name of author 1, which the flow looks up.
type Name = u8;

/// The committed rows at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rows {
    item: Item,
    name: Name,
}

/// The query: the expected content of the target.
fn query(rows: Rows) -> Option<(Item, Name)> {
    match rows.item {
        Gone => None,
        Second => Some((Second, Name::MAX)),
        item => Some((item, rows.name)),
    }
}

/// Reports whether a change of the lookup affects the item.
fn is_affected(item: Item) -> bool {
    matches!(item, First | Other)
}

/// A cursor. Moments are numbered; a snapshot is the last moment that it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Cursor {
    at: usize,
    behind: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Disk {
    /// The committed item, and whether it must be evaluated in any case.
    tracked: Option<(Item, bool)>,
    target: Option<(Item, Name)>,
    source: Cursor,
    /// Whether pending keys of a scan are left.
    unfinished: bool,
    /// The file of the source when the cursor was stored.
    file: u8,
    lookup: Cursor,
    name: Name,
}

/// The work set aside: whether the item is forced, and the cursor to store afterwards.
type Aside = (bool, Cursor, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Idle,
    /// The worker has followed the lookups up to a moment: the uncommitted state, whether a lookup
    /// changed, and whether the item is forced.
    Followed {
        at: usize,
        own: Disk,
        changed: bool,
        forced: bool,
    },
    /// The worker has given the item to a helper.
    Asked {
        own: Disk,
        forced: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    history: Vec<Rows>,
    /// Moments at which the item and the lookup row were written.
    log: Vec<usize>,
    lookup_log: Vec<usize>,
    file: u8,
    written: (usize, usize),
    disk: Disk,
    step: Step,
    aside: Option<Aside>,
    transactions: usize,
}

/// The actions of the writers, and the way the source is followed.
#[derive(Clone, Copy, Debug)]
struct Case {
    items: &'static [Item],
    names: &'static [Name],
    captured: bool,
    rewrites: bool,
}

/// Transactions of the worker before all writes are done.
const MAX_TRANSACTIONS: usize = 3;

impl World {
    fn new() -> World {
        let rows = Rows { item: First, name: 0 };
        let cursor = Cursor { at: 0, behind: false };
        let disk = Disk {
            tracked: Some((First, false)),
            target: query(rows),
            source: cursor,
            unfinished: false,
            file: 0,
            lookup: cursor,
            name: 0,
        };
        World {
            history: vec![rows],
            log: vec![],
            lookup_log: vec![],
            file: 0,
            written: (0, 0),
            disk,
            step: Step::Idle,
            aside: None,
            transactions: 0,
        }
    }

    fn now(&self) -> usize {
        self.history.len() - 1
    }

    /// Returns all possible next states.
    fn next(&self, rule: Rule, case: Case) -> Vec<World> {
        let mut all = vec![];
        let last = self.history[self.now()];
        if let Some(item) = case.items.get(self.written.0) {
            let mut then = self.clone();
            then.history.push(Rows { item: *item, ..last });
            then.log.push(then.now());
            then.written.0 += 1;
            all.push(then);
        }
        if let Some(name) = case.names.get(self.written.1) {
            let mut then = self.clone();
            then.history.push(Rows { name: *name, ..last });
            then.lookup_log.push(then.now());
            then.written.1 += 1;
            all.push(then);
        }
        if case.rewrites && self.file == 0 {
            all.push(World { file: 1, ..self.clone() });
        }
        if self.step != Step::Idle || self.aside.is_some() {
            all.push(World { step: Step::Idle, aside: None, ..self.clone() });
        }
        if self.step != Step::Idle || self.transactions < MAX_TRANSACTIONS {
            all.extend(self.worker_steps(rule, case, true));
        }
        all
    }

    /// Returns the possible next states after a step of the worker. Without `partially`, the worker
    /// does all its work at once.
    fn worker_steps(&self, rule: Rule, case: Case, partially: bool) -> Vec<World> {
        match self.step {
            Step::Idle => self.follow_lookups(rule, partially),
            Step::Followed { at, own, changed, forced } => {
                let at = if rule.one_snapshot { at } else { self.now() };
                self.read_source(rule, case, partially, at, own, changed, forced)
            }
            Step::Asked { own, forced } => {
                // The helper commits, and then the worker commits or ends.
                let mut helped = self.disk;
                evaluate(&mut helped, self.history[self.now()], forced);
                let Disk { tracked, target, .. } = helped;
                let own = Disk { tracked, target, ..own };
                let disk = Disk { tracked, target, ..self.disk };
                vec![self.commit(own, self.aside), World { disk, step: Step::Idle, ..self.clone() }]
            }
        }
    }

    fn follow_lookups(&self, rule: Rule, partially: bool) -> Vec<World> {
        let at = self.now();
        let begun = World { transactions: self.transactions + 1, ..self.clone() };
        let followed = |own, changed, forced| World {
            step: Step::Followed { at, own, changed, forced },
            ..begun.clone()
        };
        if self.aside.is_some() && !rule.follows_together {
            return vec![followed(self.disk, false, false)];
        }
        let rows = self.history[at];
        let ends = ends(&self.lookup_log, self.disk.lookup.at, at, partially);
        let transaction = |end: usize| {
            let mut own = self.disk;
            let named = is_named(&self.lookup_log, own.lookup.at, end);
            let changed = named && (rows.name != own.name || own.lookup.behind);
            if changed {
                own.name = rows.name;
            }
            own.lookup = Cursor { at: end, behind: rule.marks_behind && end < at };
            followed(own, changed, changed && is_affected(rows.item))
        };
        ends.into_iter().map(transaction).collect()
    }

    #[allow(clippy::too_many_arguments)]
    fn read_source(
        &self,
        rule: Rule,
        case: Case,
        partially: bool,
        at: usize,
        mut own: Disk,
        changed: bool,
        forced: bool,
    ) -> Vec<World> {
        let rows = self.history[at];
        let mut all = vec![];
        let rescans = rule.follows_together && changed && !case.captured;
        if let Some((aside, cursor, file)) = self.aside.filter(|_| !rescans) {
            // The last slice. Earlier slices may contain other items, and forced items are
            // evaluated in them.
            if partially {
                let mut early = own;
                if forced {
                    evaluate(&mut early, rows, true);
                }
                all.push(self.commit(early, self.aside));
            }
            evaluate(&mut own, rows, aside || forced);
            (own.source, own.unfinished, own.file) = (cursor, false, file);
            all.push(self.commit(own, None));
            return all;
        }
        if case.captured && !own.unfinished && own.file == self.file {
            for end in ends(&self.log, own.source.at, at, partially) {
                let mut own = own;
                let named = is_named(&self.log, own.source.at, end);
                let forced = forced || named && own.source.behind;
                own.source = Cursor { at: end, behind: rule.marks_behind && end < at };
                if (named || forced) && rule.helpers && partially {
                    all.push(World { step: Step::Asked { own, forced }, ..self.clone() });
                }
                if named || forced {
                    evaluate(&mut own, rows, forced);
                }
                all.push(self.commit(own, None));
            }
            return all;
        }
        // The source is scanned from time to time; forced items are evaluated at once.
        let waits = !case.captured && partially && !own.unfinished;
        if waits && !(rule.follows_together && changed) {
            let mut own = own;
            if forced {
                evaluate(&mut own, rows, true);
            }
            all.push(self.commit(own, None));
        }
        let noted = match own.file == self.file && case.captured {
            true => is_named(&self.log, own.source.at, at),
            false => true,
        };
        let forced = forced || own.source.behind && noted;
        let found = forced || decision(&own, rows, false) != Decision::Skip;
        let cursor = Cursor { at, behind: false };
        if found && partially {
            let mut own = own;
            let cursor = Cursor { at, behind: rule.marks_behind && case.captured };
            (own.source, own.unfinished, own.file) = (cursor, true, self.file);
            if rule.marks_items
                && let Some((_, marked)) = &mut own.tracked
            {
                *marked = true;
            }
            all.push(self.commit(own, Some((forced, cursor, self.file))));
        }
        evaluate(&mut own, rows, forced);
        (own.source, own.unfinished, own.file) = (cursor, false, self.file);
        all.push(self.commit(own, None));
        all
    }

    fn commit(&self, own: Disk, aside: Option<Aside>) -> World {
        World { disk: own, step: Step::Idle, aside, ..self.clone() }
    }

    /// Reports whether the target matches the query after all writes and a complete run of the
    /// worker.
    fn converges(&self, rule: Rule, case: Case) -> bool {
        let mut world = self.clone();
        for _ in 0..2 * MAX_TRANSACTIONS {
            let Some(next) = world.worker_steps(rule, case, false).pop() else { return false };
            world = next;
        }
        world.disk.target == query(world.history[world.now()])
    }
}

/// Returns the possible ends of reading a log: all of it, or without its last entries.
fn ends(log: &[usize], from: usize, to: usize, partially: bool) -> Vec<usize> {
    let new = log.iter().filter(|at| partially && **at > from && **at <= to);
    new.map(|at| at - 1).chain([to]).collect()
}

fn is_named(log: &[usize], from: usize, to: usize) -> bool {
    log.iter().any(|at| *at > from && *at <= to)
}

const LOGIC: LogicId = LogicId(1);

fn content(item: Item) -> Option<Fingerprint> {
    Some(Fingerprint([item as u8; 16]))
}

fn decision(disk: &Disk, rows: Rows, forced: bool) -> Decision {
    let there = rows.item != Gone;
    if forced && there {
        return Decision::Evaluate;
    }
    let incoming = there.then(|| SourceVersion { ordinal: None, content: content(rows.item) });
    let stored = disk.tracked.filter(|(_, marked)| !marked || !there);
    let stored = stored.map(|(item, _)| CommittedVersion {
        ordinal: None,
        content: content(item),
        logic: Some(LOGIC),
    });
    decide(stored.as_ref(), incoming.as_ref(), None, LOGIC, Mode::Normal)
}

fn evaluate(disk: &mut Disk, rows: Rows, forced: bool) {
    match decision(disk, rows, forced) {
        Decision::Evaluate => {
            disk.tracked = Some((rows.item, false));
            disk.target = query(rows);
        }
        Decision::Remove => (disk.tracked, disk.target) = (None, None),
        Decision::Skip | Decision::Advance | Decision::Wait => {}
    }
}

/// Explores all states. Returns their number, and an end with a wrong target, if any.
fn explore(rule: Rule, case: Case) -> (usize, Option<World>) {
    let mut seen = HashSet::from([World::new()]);
    let mut open = vec![World::new()];
    while let Some(world) = open.pop() {
        if world.written == (case.items.len(), case.names.len()) && !world.converges(rule, case) {
            return (seen.len(), Some(world));
        }
        for next in world.next(rule, case) {
            if seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    (seen.len(), None)
}

fn cases() -> Vec<Case> {
    const ITEMS: [&[Item]; 5] =
        [&[Second, First], &[Gone, First], &[Other], &[Other, First], &[Second, Other]];
    const NAMES: [&[Name]; 2] = [&[1], &[1, 0]];
    let mut all = vec![];
    for items in ITEMS {
        for names in NAMES {
            for captured in [true, false] {
                for rewrites in [captured, false] {
                    all.push(Case { items, names, captured, rewrites });
                }
            }
        }
    }
    all
}

fn loses(rule: Rule) -> bool {
    cases().into_iter().any(|case| explore(rule, case).1.is_some())
}

#[test]
fn nothing_is_lost() {
    let mut all = 0;
    for case in cases() {
        let (seen, wrong) = explore(RULE, case);
        assert_eq!(wrong, None, "{case:?}");
        all += seen;
    }
    assert!(all > 10_000, "{all} states are not all there are");
}

#[test]
fn the_old_rule_loses_changes() {
    assert!(loses(OLD));
}

#[test]
fn each_part_of_the_rule_is_needed() {
    let without = [
        Rule { one_snapshot: false, ..RULE },
        Rule { marks_behind: false, ..RULE },
        Rule { marks_items: false, ..RULE },
        Rule { follows_together: false, ..RULE },
        Rule { helpers: true, ..RULE },
    ];
    for rule in without {
        assert!(loses(rule), "{rule:?}");
    }
}

//! A small model of an external target that is verified and repaired while a flow changes it: a
//! writer of the source, the flow's updates, deliveries, an edit by somebody else and the
//! verification in any order, and an end of each process at each step. The model has one key.
//!
//! Each part of the rule can be switched off. The model then finds a false alarm, or a repair that
//! makes the target wrong.

use std::collections::{HashSet, VecDeque};

/// The rule that a verification and its repair follow.
#[derive(Clone, Copy, Debug)]
struct Rule {
    /// No process delivers to the target during a comparison.
    locks: bool,
    /// Keys with changes that are not delivered are left out.
    leaves_out_waiting: bool,
    /// A row counts as known only if the ledger has its fingerprint.
    asks_ledger: bool,
    /// The repair evaluates the row again, and queues it only if the ledger has its fingerprint.
    evaluates_again: bool,
}

const RULE: Rule =
    Rule { locks: true, leaves_out_waiting: true, asks_ledger: true, evaluates_again: true };

/// The row of the key; `None` if there is none.
type Row = Option<u8>;

/// What the target should hold, as far as a verification knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Expected {
    Row(Row),
    /// The ledger has the key, but the row is not known.
    KeyOnly,
    Unsettled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Verifier {
    Idle,
    /// It has read what the target should hold.
    Read(Expected),
    /// It has found that the target holds another row than this one.
    Found(Row),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    source: Row,
    ledger: Row,
    outbox: VecDeque<Row>,
    target: Row,
    /// A process delivers the first entry of the outbox.
    delivers: bool,
    verifier: Verifier,
    /// How much of the case has happened.
    writes: usize,
    is_edited: bool,
    crashes: usize,
    verifications: usize,
    /// Whether a repair has queued a change since the edit.
    is_repaired: bool,
    /// Whether a verification has found a difference that nobody has made.
    has_false_alarm: bool,
}

/// What the writer writes, and what somebody else writes to the target.
#[derive(Clone, Copy, Debug)]
struct Case {
    writes: &'static [Row],
    edit: Option<Row>,
}

const CRASHES: usize = 2;
const VERIFICATIONS: usize = 2;

impl World {
    fn new() -> World {
        World {
            source: Some(1),
            ledger: Some(1),
            outbox: VecDeque::new(),
            target: Some(1),
            delivers: false,
            verifier: Verifier::Idle,
            writes: 0,
            is_edited: false,
            crashes: 0,
            verifications: 0,
            is_repaired: false,
            has_false_alarm: false,
        }
    }

    /// Returns all possible next states.
    fn next(&self, rule: Rule, case: Case) -> Vec<World> {
        let mut all = vec![];
        if let Some(row) = case.writes.get(self.writes) {
            all.push(World { source: *row, writes: self.writes + 1, ..self.clone() });
        }
        if let (Some(row), false) = (case.edit, self.is_edited) {
            all.push(World { target: row, is_edited: true, is_repaired: false, ..self.clone() });
        }
        if self.source != self.ledger {
            all.push(self.update());
        }
        all.extend(self.delivery_steps(rule));
        all.extend(self.verifier_steps(rule));
        if self.crashes < CRASHES {
            let crashed = World { crashes: self.crashes + 1, ..self.clone() };
            if self.delivers {
                // The server has stored the row, or has not.
                all.push(World { delivers: false, ..crashed.clone() });
                all.push(World { delivers: false, target: self.outbox[0], ..crashed.clone() });
            }
            if self.verifier != Verifier::Idle {
                all.push(World { verifier: Verifier::Idle, ..crashed });
            }
        }
        all
    }

    /// Evaluates the item, and queues its row.
    fn update(&self) -> World {
        let mut then = World { ledger: self.source, ..self.clone() };
        then.outbox.push_back(self.source);
        then
    }

    fn delivery_steps(&self, rule: Rule) -> Option<World> {
        let is_locked = rule.locks && matches!(self.verifier, Verifier::Read(_));
        match self.delivers {
            true => {
                let mut then = World { delivers: false, ..self.clone() };
                then.target = then.outbox.pop_front().unwrap_or_default();
                Some(then)
            }
            false if self.outbox.is_empty() || is_locked => None,
            false => Some(World { delivers: true, ..self.clone() }),
        }
    }

    fn verifier_steps(&self, rule: Rule) -> Option<World> {
        match self.verifier {
            Verifier::Idle if self.verifications == VERIFICATIONS => None,
            Verifier::Idle if rule.locks && self.delivers => None,
            Verifier::Idle => Some(World {
                verifier: Verifier::Read(self.expected(rule)),
                verifications: self.verifications + 1,
                ..self.clone()
            }),
            Verifier::Read(expected) => {
                let differs = match expected {
                    Expected::Row(row) => self.target != row,
                    Expected::KeyOnly => self.target.is_none(),
                    Expected::Unsettled => false,
                };
                let row = match expected {
                    Expected::Row(row) => row,
                    Expected::KeyOnly | Expected::Unsettled => self.ledger,
                };
                Some(World {
                    verifier: if differs { Verifier::Found(row) } else { Verifier::Idle },
                    has_false_alarm: self.has_false_alarm || differs && !self.is_edited,
                    ..self.clone()
                })
            }
            Verifier::Found(row) => Some(self.repair(rule, row)),
        }
    }

    /// Returns what the target should hold. The update of another process may come at any moment.
    fn expected(&self, rule: Rule) -> Expected {
        if rule.leaves_out_waiting && !self.outbox.is_empty() {
            return Expected::Unsettled;
        }
        match rule.asks_ledger {
            false => Expected::Row(self.source),
            true if self.source == self.ledger || self.ledger.is_none() => {
                Expected::Row(self.ledger)
            }
            true => Expected::KeyOnly,
        }
    }

    /// Queues the change that mends the target, under the flow's lock.
    fn repair(&self, rule: Rule, row: Row) -> World {
        let mut then = World { verifier: Verifier::Idle, ..self.clone() };
        let queued = match (row, rule.evaluates_again) {
            (_, false) => Some(row),
            // An extra key: the ledger still does not have it.
            (None, true) => self.ledger.is_none().then_some(None),
            (Some(_), true) => {
                (self.ledger.is_some() && self.source == self.ledger).then_some(self.ledger)
            }
        };
        if let Some(queued) = queued {
            then.outbox.push_back(queued);
            then.is_repaired = true;
        }
        then
    }

    /// Returns what is wrong in the end: after the flow has followed the source, and everything is
    /// delivered.
    fn fault(&self) -> Option<&'static str> {
        let mut end = if self.source == self.ledger { self.clone() } else { self.update() };
        while let Some(row) = end.outbox.pop_front() {
            end.target = row;
        }
        let must_match = !self.is_edited || self.is_repaired;
        match (self.has_false_alarm, must_match && end.target != end.source) {
            (true, _) => Some("a false alarm"),
            (_, true) => Some("a wrong row"),
            _ => None,
        }
    }
}

/// Explores all states. Returns their number, and a state with a fault, if any.
fn explore(rule: Rule, case: Case) -> (usize, Option<(&'static str, World)>) {
    let mut seen = HashSet::from([World::new()]);
    let mut open = vec![World::new()];
    while let Some(world) = open.pop() {
        if let Some(fault) = world.fault() {
            return (seen.len(), Some((fault, world)));
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
    const WRITES: [&[Row]; 5] =
        [&[], &[Some(2)], &[Some(2), Some(1)], &[None, Some(1)], &[Some(2), None, Some(3)]];
    let mut all = vec![];
    for writes in WRITES {
        for edit in [None, Some(Some(9)), Some(None)] {
            all.push(Case { writes, edit });
        }
    }
    all
}

fn has_fault(rule: Rule) -> bool {
    cases().into_iter().any(|case| explore(rule, case).1.is_some())
}

#[test]
fn a_verification_finds_only_what_others_changed_and_repairs_it() {
    let mut all = 0;
    for case in cases() {
        let (seen, fault) = explore(RULE, case);
        assert_eq!(fault, None, "{case:?}");
        all += seen;
    }
    assert!(all > 10_000, "{all} states are not all there are");
}

#[test]
fn each_part_of_the_rule_is_needed() {
    let without = [
        Rule { locks: false, ..RULE },
        Rule { leaves_out_waiting: false, ..RULE },
        Rule { asks_ledger: false, ..RULE },
        Rule { evaluates_again: false, ..RULE },
    ];
    for rule in without {
        assert!(has_fault(rule), "{rule:?}");
    }
}

//! What a batch of items recalls of the results of memoised functions, and what it misses.
//!
//! A result is addressed by its function and by the fingerprint of its input; the input itself is then
//! compared, so that two inputs of one fingerprint never share a result.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// A memoised function of a flow, as it is now: another after it was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionId(pub i32);

/// Where an entry is in [`Recall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(usize);

/// Bytes of a value, `None` for NULL.
pub type Bytes = Option<Rc<[u8]>>;

/// Why there is no result: the input's fault, which ends the evaluation of the items that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Asked for in this pass.
    Asked,
    /// Looked for in the store, and not there.
    Absent,
    Known(Bytes),
    Failed(Fault),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub function: FunctionId,
    pub fingerprint: i64,
    pub input: Rc<[u8]>,
    pub state: State,
    /// Its number in the store, once it is there.
    pub stored: Option<i64>,
}

/// The entries that the items of a batch have asked for.
#[derive(Default)]
pub struct Recall {
    entries: Vec<Entry>,
    places: HashMap<(FunctionId, i64), Vec<Place>>,
    bytes: usize,
    uses: BTreeMap<usize, BTreeSet<Place>>,
    /// Items that cannot be evaluated yet, and which call in the query has kept them from it.
    missing: BTreeMap<usize, i32>,
}

impl Recall {
    /// The entry of an input; a new one is only asked for yet.
    pub fn entry(&mut self, function: FunctionId, fingerprint: i64, input: &[u8]) -> Place {
        let known = self.places.get(&(function, fingerprint)).and_then(|places| {
            places.iter().find(|place| *self.entries[place.0].input == *input).copied()
        });
        known.unwrap_or_else(|| {
            let input = Rc::from(input);
            self.add(Entry { function, fingerprint, input, state: State::Asked, stored: None })
        })
    }

    fn add(&mut self, entry: Entry) -> Place {
        let place = Place(self.entries.len());
        self.bytes += entry.input.len() + size_of::<Entry>();
        if let State::Known(Some(result)) = &entry.state {
            self.bytes += result.len();
        }
        self.places.entry((entry.function, entry.fingerprint)).or_default().push(place);
        self.entries.push(entry);
        place
    }

    /// Adds an entry of the store, or lets one that was asked for know its result.
    pub fn load(&mut self, entry: Entry) {
        let place = self.entry(entry.function, entry.fingerprint, &entry.input);
        if let Some(id) = entry.stored {
            self.entries[place.0].stored = Some(id);
        }
        self.settle(place, entry.state);
    }

    pub fn settle(&mut self, place: Place, state: State) {
        if let State::Known(Some(result)) = &state {
            self.bytes += result.len();
        }
        self.entries[place.0].state = state;
    }

    pub fn get(&self, place: Place) -> &Entry {
        &self.entries[place.0]
    }

    /// An item's result rests on this entry.
    pub fn used(&mut self, item: usize, place: Place) {
        self.uses.entry(item).or_default().insert(place);
    }

    /// An item cannot be evaluated yet, for want of the result of a call of this number. `false`: what
    /// the call was given may come from another that has no result yet, so that nothing is to be
    /// asked for. Calls of number 0 rest on no other.
    pub fn misses(&mut self, item: usize, call: i32) -> bool {
        *self.missing.entry(item).or_insert(call) == call
    }

    /// Items are evaluated (again): what they use is to be seen.
    pub fn begin(&mut self, items: impl Iterator<Item = usize>) {
        self.missing.clear();
        for item in items {
            self.uses.remove(&item);
        }
    }

    /// The items that could not be evaluated.
    pub fn take_missing(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.missing).into_keys().collect()
    }

    /// What is known, and not in the store.
    pub fn unstored(&self) -> Vec<Place> {
        let known = |e: &Entry| e.stored.is_none() && matches!(e.state, State::Known(_));
        let places = self.entries.iter().enumerate().filter(|(_, e)| known(e));
        places.map(|(n, _)| Place(n)).collect()
    }

    /// What the items use, by item.
    pub fn uses(&self) -> &BTreeMap<usize, BTreeSet<Place>> {
        &self.uses
    }

    /// These are in the store now.
    pub fn stored(&mut self, numbers: &[(Place, i64)]) {
        for (place, number) in numbers {
            self.entries[place.0].stored = Some(*number);
        }
    }

    /// About how much memory all of it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything, if it is more than that.
    pub fn clear_over(&mut self, bytes: usize) {
        if self.bytes > bytes {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        *self = Recall::default();
    }
}

/// What the calls of one function came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Results that items rest on, a result once an item: hits and misses.
    pub calls: i64,
    /// Of these, how many had to be computed.
    pub misses: i64,
    /// Inputs for which there was no result, through their own fault.
    pub errors: i64,
    /// Requests to a provider, or calls of a batch function.
    pub requests: i64,
    pub tokens_in: i64,
    pub tokens_out: i64,
    /// What it cost, in the unit of the server's prices.
    pub cost: f64,
    /// Bytes of the results that were computed.
    pub bytes: i64,
    /// Time it took to compute them, in microseconds.
    pub micros: i64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, more: Stats) {
        self.calls += more.calls;
        self.misses += more.misses;
        self.errors += more.errors;
        self.requests += more.requests;
        self.tokens_in += more.tokens_in;
        self.tokens_out += more.tokens_out;
        self.cost += more.cost;
        self.bytes += more.bytes;
        self.micros += more.micros;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: FunctionId = FunctionId(1);

    fn known(text: &str) -> State {
        State::Known(Some(Rc::from(text.as_bytes())))
    }

    #[test]
    fn inputs_of_one_fingerprint_do_not_share_a_result() {
        let mut recall = Recall::default();
        let a = recall.entry(F, 7, b"a");
        let b = recall.entry(F, 7, b"b");
        assert_ne!(a, b);
        recall.settle(a, known("A"));
        assert_eq!(recall.entry(F, 7, b"a"), a);
        assert_eq!(recall.get(a).state, known("A"));
        assert_eq!(recall.get(b).state, State::Asked);
    }

    #[test]
    fn functions_do_not_share_results() {
        let mut recall = Recall::default();
        assert_ne!(recall.entry(F, 7, b"a"), recall.entry(FunctionId(2), 7, b"a"));
    }

    #[test]
    fn an_item_that_is_evaluated_again_uses_what_it_uses_then() {
        let mut recall = Recall::default();
        let (a, b) = (recall.entry(F, 1, b"a"), recall.entry(F, 2, b"b"));
        recall.used(0, a);
        recall.used(1, a);
        assert!(recall.misses(1, 2) && recall.misses(1, 2));
        assert!(!recall.misses(1, 1));
        assert_eq!(recall.take_missing(), BTreeSet::from([1]));
        recall.begin([1].into_iter());
        recall.used(1, b);
        assert_eq!(recall.uses()[&0], BTreeSet::from([a]));
        assert_eq!(recall.uses()[&1], BTreeSet::from([b]));
    }

    #[test]
    fn what_is_stored_is_not_stored_again() {
        let mut recall = Recall::default();
        let a = recall.entry(F, 1, b"a");
        assert!(recall.unstored().is_empty());
        recall.settle(a, known("A"));
        assert_eq!(recall.unstored(), [a]);
        recall.stored(&[(a, 12)]);
        assert!(recall.unstored().is_empty());
        let input = Rc::from(&b"b"[..]);
        recall.load(Entry {
            function: F,
            fingerprint: 2,
            input,
            state: known("B"),
            stored: Some(3),
        });
        assert!(recall.unstored().is_empty() && recall.bytes() > 0);
    }
}

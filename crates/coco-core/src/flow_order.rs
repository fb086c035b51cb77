//! The order of flows: a flow that feeds another flow comes first.
//!
//! A flow feeds another flow if it writes a table that the other flow follows. Flows are numbered here from 0, in the order
//! in which they should come if nothing else orders them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Which flows feed which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowOrder {
    /// For each flow: the flows that feed it directly.
    feeders: Vec<BTreeSet<usize>>,
}

impl FlowOrder {
    /// Returns the order of `count` flows. Each edge leads from a flow to a flow that it feeds.
    pub fn new(count: usize, edges: impl IntoIterator<Item = (usize, usize)>) -> FlowOrder {
        let mut feeders = vec![BTreeSet::new(); count];
        for (from, to) in edges {
            if from < count && to < count {
                feeders[to].insert(from);
            }
        }
        FlowOrder { feeders }
    }

    /// Reports whether one flow feeds another one directly.
    pub fn feeds(&self, from: usize, to: usize) -> bool {
        self.feeders.get(to).is_some_and(|feeders| feeders.contains(&from))
    }

    /// Returns these flows, each after all of them that feed it, directly or through flows that are
    /// not among them. If nothing orders two flows, the smaller number comes first. In a cycle, the
    /// smallest number comes first.
    pub fn sorted(&self, flows: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut left: BTreeSet<usize> =
            flows.into_iter().filter(|flow| *flow < self.feeders.len()).collect();
        let upstream: BTreeMap<usize, BTreeSet<usize>> =
            left.iter().map(|flow| (*flow, self.upstream(*flow))).collect();
        // Two flows that feed each other are in a cycle, and do not wait for each other.
        let waits_for = |flow: usize| -> BTreeSet<usize> {
            let feeds_it = |other: &usize| {
                upstream.get(other).is_some_and(|upstream| !upstream.contains(&flow))
            };
            upstream[&flow].iter().copied().filter(feeds_it).collect()
        };
        let waiting: BTreeMap<usize, BTreeSet<usize>> =
            left.iter().map(|flow| (*flow, waits_for(*flow))).collect();
        let mut sorted = Vec::with_capacity(left.len());
        while let Some(smallest) = left.first().copied() {
            let ready = left.iter().copied().find(|flow| waiting[flow].is_disjoint(&left));
            let next = ready.unwrap_or(smallest);
            left.remove(&next);
            sorted.push(next);
        }
        sorted
    }

    /// Returns the flows that feed a flow, directly or through others. In a cycle, the flow itself
    /// is among them.
    pub fn upstream(&self, flow: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut next: Vec<usize> = self.direct(flow).collect();
        while let Some(flow) = next.pop() {
            if found.insert(flow) {
                next.extend(self.direct(flow));
            }
        }
        found
    }

    fn direct(&self, flow: usize) -> impl Iterator<Item = usize> + '_ {
        self.feeders.get(flow).into_iter().flatten().copied()
    }

    /// Returns a shortest cycle through a flow: the flow, the flow that it feeds, and so on until
    /// the flow again. `None` if the flow does not feed itself.
    pub fn cycle_through(&self, flow: usize) -> Option<Vec<usize>> {
        // Searches against the edges, so that the path back is in their direction.
        let mut fed_by_it = vec![None; self.feeders.len()];
        let mut next = VecDeque::from([flow]);
        while let Some(at) = next.pop_front() {
            for feeder in self.direct(at) {
                if feeder == flow {
                    let mut cycle = vec![flow];
                    let mut here = Some(at);
                    while let Some(step) = here.filter(|step| *step != flow) {
                        cycle.push(step);
                        here = fed_by_it[step];
                    }
                    cycle.push(flow);
                    return Some(cycle);
                }
                if fed_by_it[feeder].is_none() {
                    fed_by_it[feeder] = Some(at);
                    next.push_back(feeder);
                }
            }
        }
        None
    }

    /// Divides these flows into groups, so that a flow and each flow that it feeds directly are in
    /// the same group if `joins` accepts the pair. Each group is sorted as [`FlowOrder::sorted`]
    /// does, and the groups follow the smallest number in them.
    pub fn groups(
        &self,
        flows: impl IntoIterator<Item = usize>,
        joins: impl Fn(usize, usize) -> bool,
    ) -> Vec<Vec<usize>> {
        let mut left: BTreeSet<usize> = flows.into_iter().collect();
        let mut groups = Vec::new();
        while let Some(first) = left.pop_first() {
            let (mut group, mut next) = (vec![first], vec![first]);
            while let Some(at) = next.pop() {
                let is_joined = |other: usize| {
                    self.feeds(at, other) && joins(at, other)
                        || self.feeds(other, at) && joins(other, at)
                };
                let found: Vec<usize> = left.iter().copied().filter(|o| is_joined(*o)).collect();
                for other in found {
                    left.remove(&other);
                    group.push(other);
                    next.push(other);
                }
            }
            groups.push(self.sorted(group));
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_sorted_whatever_the_numbers() {
        let order = FlowOrder::new(4, [(3, 2), (2, 1), (1, 0)]);
        assert_eq!(order.sorted(0..4), [3, 2, 1, 0]);
        // Flows that are left out still order the others.
        assert_eq!(order.sorted([0, 3]), [3, 0]);
        assert_eq!(order.upstream(0), BTreeSet::from([1, 2, 3]));
        assert_eq!(order.upstream(3), BTreeSet::new());
    }

    #[test]
    fn flows_that_nothing_orders_keep_the_order_of_their_numbers() {
        assert_eq!(FlowOrder::new(3, []).sorted([2, 0, 1]), [0, 1, 2]);
        // A diamond: 3 feeds 0 and 2, which feed 1.
        let order = FlowOrder::new(4, [(3, 0), (3, 2), (0, 1), (2, 1)]);
        assert_eq!(order.sorted(0..4), [3, 0, 2, 1]);
        assert_eq!(order.upstream(1), BTreeSet::from([0, 2, 3]));
    }

    #[test]
    fn unknown_numbers_are_left_out() {
        let order = FlowOrder::new(2, [(0, 1), (1, 7), (7, 0)]);
        assert_eq!(order.sorted([0, 1, 7]), [0, 1]);
        assert_eq!(order.upstream(7), BTreeSet::new());
        assert_eq!(order.cycle_through(7), None);
    }

    #[test]
    fn a_shortest_cycle_is_found_in_the_direction_of_its_edges() {
        let order = FlowOrder::new(5, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 2)]);
        assert_eq!(order.cycle_through(0), Some(vec![0, 1, 2, 0]));
        assert_eq!(order.cycle_through(1), Some(vec![1, 2, 0, 1]));
        assert_eq!(order.cycle_through(3), Some(vec![3, 4, 2, 3]));
        let itself = FlowOrder::new(2, [(0, 0), (0, 1)]);
        assert_eq!(itself.cycle_through(0), Some(vec![0, 0]));
        assert_eq!(itself.cycle_through(1), None);
    }

    #[test]
    fn a_cycle_does_not_keep_other_flows_from_being_sorted() {
        // 3 feeds the cycle of 1 and 2, which feeds 0.
        let order = FlowOrder::new(4, [(3, 2), (1, 2), (2, 1), (1, 0)]);
        assert_eq!(order.sorted(0..4), [3, 1, 2, 0]);
    }

    #[test]
    fn groups_are_what_feeds_and_is_fed() {
        // Two chains, and a flow by itself.
        let order = FlowOrder::new(6, [(5, 0), (0, 3), (4, 2)]);
        let all = order.groups(0..6, |_, _| true);
        assert_eq!(all, [vec![5, 0, 3], vec![1], vec![4, 2]]);
        let none = order.groups(0..6, |_, _| false);
        assert_eq!(none, (0..6).map(|n| vec![n]).collect::<Vec<_>>());
        // A flow that is left out joins nothing.
        assert_eq!(order.groups([3, 5], |_, _| true), [vec![3], vec![5]]);
    }
}

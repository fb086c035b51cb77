//! The differences between a flow and its declaration: what differs, what it takes to remove the
//! difference, and what the next update does because of it.
//!
//! `compare` finds differences. `coco.create_flow` removes them, and `coco.plan` shows them.

/// The property of a flow that differs from its declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// The flow does not exist.
    Existence,
    /// The flow lacks a part, or can no longer be loaded.
    Completeness,
    SourceRelation,
    SourceName,
    SourceKey,
    /// Whether items are rows or groups.
    Items,
    /// How coco computes groups.
    Aggregate,
    Target,
    TargetKey,
    Server,
    Query,
    Ordinal,
    Fingerprint,
    Capture,
    RefreshInterval,
    SearchPath,
    Settings,
    /// Whether coco derives lookups.
    Lookups,
    /// When workers update the flow.
    Refresh,
    FillOrder,
    Options,
}

/// How coco removes a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Declares the flow, or drops it and declares it again.
    Declare,
    /// Changes the query of the target.
    SetQuery,
    /// Alters the flow.
    Alter,
    /// Derives lookups, or drops the derived ones.
    FollowOther,
}

/// A difference between a flow and its declaration.
#[derive(Clone, Debug)]
pub struct FlowDifference {
    pub property: Property,
    /// The kind of the object that differs: flow, source or target.
    pub object: &'static str,
    pub name: String,
    /// What changes, as a phrase.
    pub change: String,
}

impl FlowDifference {
    pub fn new(
        property: Property,
        object: &'static str,
        name: impl Into<String>,
        change: impl Into<String>,
    ) -> FlowDifference {
        FlowDifference { property, object, name: name.into(), change: change.into() }
    }

    /// Returns how coco removes the difference.
    pub fn remedy(&self) -> Remedy {
        match self.property {
            Property::Existence
            | Property::Completeness
            | Property::SourceRelation
            | Property::SourceName
            | Property::SourceKey
            | Property::Items
            | Property::Aggregate
            | Property::Target
            | Property::TargetKey
            | Property::Server => Remedy::Declare,
            Property::Query => Remedy::SetQuery,
            Property::Lookups => Remedy::FollowOther,
            Property::Ordinal
            | Property::Fingerprint
            | Property::Capture
            | Property::RefreshInterval
            | Property::Refresh
            | Property::FillOrder
            | Property::SearchPath
            | Property::Settings
            | Property::Options => Remedy::Alter,
        }
    }

    /// Returns what the next update does because of the difference.
    pub fn effect(&self) -> &'static str {
        match self.property {
            Property::Existence => "the next update evaluates every item",
            Property::Query | Property::Fingerprint | Property::SearchPath | Property::Settings => {
                "the next update evaluates every item"
            }
            Property::Lookups => "the next update follows other lookups",
            Property::Options => "the next update writes every row again",
            Property::Ordinal
            | Property::Capture
            | Property::RefreshInterval
            | Property::Refresh
            | Property::FillOrder => "no item is evaluated because of this",
            _ => "the flow is declared again, and the next update evaluates every item",
        }
    }
}

/// Reports whether the flow has to be declared again because of these differences.
pub fn must_declare_again(differences: &[FlowDifference]) -> bool {
    differences.iter().any(|d| d.remedy() == Remedy::Declare)
}

/// Describes each difference in a line.
pub fn describe_differences(differences: &[FlowDifference]) -> String {
    let line =
        |d: &FlowDifference| format!("{} {}: {}; {}.", d.object, d.name, d.change, d.effect());
    differences.iter().map(line).collect::<Vec<_>>().join("\n")
}

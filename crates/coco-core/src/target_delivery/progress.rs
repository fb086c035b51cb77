//! What a step of delivery has done.

use std::time::Duration;

/// The state of a target after `TargetDelivery::advance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Everything is delivered.
    #[default]
    Done,
    /// A job is running. It wakes the process when it ends.
    InFlight,
    /// A job is running, and more rows can be read meanwhile.
    Reading,
    /// Another process delivers to the target.
    OtherProcess,
    /// A delivery error pauses delivery for this time.
    Waiting(Duration),
    /// A delivery error was recorded just now.
    Failed,
}

/// What `TargetDelivery::advance` has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub standing: Standing,
    /// How many rows were rejected.
    pub rejected: i64,
    /// Rows of an initial load are lost with the process that had them, so all rows must be sent.
    pub is_interrupted: bool,
}

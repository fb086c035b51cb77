//! What coco's processes do: live flows, targets outside the database, helpers, and what is seen of them.

#[cfg(feature = "http")]
#[path = "../support/http.rs"]
mod http;
#[cfg(feature = "functions")]
#[path = "../support/provider.rs"]
mod provider;
#[path = "../support/scripted.rs"]
mod scripted;
#[cfg(all(feature = "http", feature = "postgres"))]
#[path = "../support/sides.rs"]
mod sides;
#[path = "../support/mod.rs"]
mod support;

mod altered;
mod as_code;
mod chains;
mod delta_groups;
mod expectations;
mod external;
mod external_fills;
mod gapless;
mod gapless_partitions;
mod helpers;
mod limits;
mod live;
mod locked_targets;
mod log;
mod memory;
mod monitoring;
mod progress;
mod reexport_extra;
mod schedules;
mod stand_ins;
mod verify_interval;
mod verify_outside;

//! A flow's rows in coco's catalog. No foreign keys connect them: see sql/catalog.sql.

use crate::flows::verification;
use crate::pg::error::Result;
use crate::pg::spi::{self, arg};

/// Deletes all of a flow's catalog rows except its row in `coco_internal.flow`. The caller must act as the
/// extension's owner. It must also hold the flow's lock, or have just inserted the row in
/// `coco_internal.flow`: an incomplete restore can leave other rows under the same name.
pub fn delete_all(flow: &str, id: i32) -> Result<()> {
    const OF_ID: [&str; 7] = [
        "delete from coco_internal.version where flow = $1 or of = $1",
        "delete from coco_internal.flow_error where flow = $1",
        "delete from coco_internal.scheduled_run where flow = $1",
        "delete from coco_internal.run_history where flow = $1",
        "delete from coco_internal.run_total where flow = $1",
        "delete from coco_internal.flow_label where flow = $1",
        "delete from coco_internal.search where flow = $1",
    ];
    verification::forget(id)?;
    delete_named(flow)?;
    OF_ID.iter().try_for_each(|query| spi::execute(query, &[arg(id)]).map(drop))
}

/// Deletes the catalog rows that have a flow's name, except its row in `coco_internal.flow`. The caller must
/// act as the extension's owner.
pub fn delete_named(flow: &str) -> Result<()> {
    const OF_NAME: [&str; 7] = [
        "delete from coco_internal.cursor where source in (select id from coco_internal.source where flow = $1)",
        "delete from coco_internal.delivery_state where target in (select id from coco_internal.target where flow = $1)",
        "delete from coco_internal.expectation where target in (select id from coco_internal.target where flow = $1)",
        "delete from coco_internal.source where flow = $1",
        "delete from coco_internal.target where flow = $1",
        "delete from coco_internal.memo_stats where flow = $1",
        "delete from coco_internal.logic where flow = $1",
    ];
    OF_NAME.iter().try_for_each(|query| spi::execute(query, &[arg(flow)]).map(drop))
}

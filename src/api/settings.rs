//! Settings (GUCs) under the prefix `coco`.

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

static BATCH_SIZE: GucSetting<i32> = GucSetting::<i32>::new(10_000);

/// Defines the settings; called once when the library is loaded.
pub fn define() {
    GucRegistry::define_int_guc(
        c"coco.batch_size",
        c"Number of source items evaluated and written as one batch.",
        c"A batch is held in work_mem and spills to disk beyond it. One that fails is halved until the failing items are found.",
        &BATCH_SIZE,
        1,
        1_000_000,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// Items a batch.
pub fn batch_size() -> usize {
    BATCH_SIZE.get().max(1) as usize
}

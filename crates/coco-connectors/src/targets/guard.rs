//! A wrapper around each connector that masks secrets in texts of the server, and bounds their
//! length.

use async_trait::async_trait;

use super::pre_commit_stream::RowStream;
use super::{Prepared, Target};
use coco_core::change::{Change, DeliveryError, RejectedChange, TargetSchema};
use coco_core::key_range::{HeldRow, KeyRange, PartDigests};
use coco_core::masking::Masker;

/// A target with a masker for the secrets of its user mapping.
pub struct Guarded {
    pub target: Box<dyn Target>,
    pub masker: Masker,
}

#[async_trait]
impl Target for Guarded {
    async fn exists(&mut self, schema: &TargetSchema) -> Result<bool, DeliveryError> {
        self.target.exists(schema).await.map_err(|t| self.masker.mask_error(t))
    }

    async fn prepare(&mut self, schema: &TargetSchema) -> Result<Prepared, DeliveryError> {
        self.target.prepare(schema).await.map_err(|t| self.masker.mask_error(t))
    }

    async fn apply(
        &mut self,
        schema: &TargetSchema,
        changes: &[Change],
    ) -> Result<Vec<RejectedChange>, DeliveryError> {
        let rejected = self.target.apply(schema, changes).await;
        let rejected = rejected.map_err(|t| self.masker.mask_error(t))?;
        Ok(rejected.into_iter().map(|r| self.masker.mask_rejected_change(r)).collect())
    }

    async fn load_stream(
        &mut self,
        schema: &TargetSchema,
        rows: &mut RowStream,
    ) -> Result<bool, DeliveryError> {
        self.target.load_stream(schema, rows).await.map_err(|t| self.masker.mask_error(t))
    }

    async fn part_digests(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        digits: u32,
    ) -> Result<PartDigests, DeliveryError> {
        let parts = self.target.part_digests(schema, ranges, digits).await;
        parts.map_err(|t| self.masker.mask_error(t))
    }

    async fn held_rows(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        most: usize,
    ) -> Result<Vec<HeldRow>, DeliveryError> {
        let rows = self.target.held_rows(schema, ranges, most).await;
        rows.map_err(|t| self.masker.mask_error(t))
    }

    async fn remove(&mut self, schema: &TargetSchema) -> Result<(), DeliveryError> {
        self.target.remove(schema).await.map_err(|t| self.masker.mask_error(t))
    }
}

//! What stands before each connector: no text of a server passes that shows a secret, or is long.

use async_trait::async_trait;

use super::ahead::Arriving;
use super::{Prepared, Target};
use coco_core::delivery::{Change, Refused, Shape, Trouble};
use coco_core::masking::Masker;

/// A target with the secrets of its user mapping, which it is opened with.
pub struct Guarded {
    pub target: Box<dyn Target>,
    pub masker: Masker,
}

#[async_trait]
impl Target for Guarded {
    async fn is_there(&mut self, shape: &Shape) -> Result<bool, Trouble> {
        self.target.is_there(shape).await.map_err(|t| self.masker.trouble(t))
    }

    async fn prepare(&mut self, shape: &Shape) -> Result<Prepared, Trouble> {
        self.target.prepare(shape).await.map_err(|t| self.masker.trouble(t))
    }

    async fn apply(&mut self, shape: &Shape, changes: &[Change]) -> Result<Vec<Refused>, Trouble> {
        let refused = self.target.apply(shape, changes).await;
        let refused = refused.map_err(|t| self.masker.trouble(t))?;
        Ok(refused.into_iter().map(|r| self.masker.refused(r)).collect())
    }

    async fn fill(&mut self, shape: &Shape, rows: &mut Arriving) -> Result<bool, Trouble> {
        self.target.fill(shape, rows).await.map_err(|t| self.masker.trouble(t))
    }

    async fn remove(&mut self, shape: &Shape) -> Result<(), Trouble> {
        self.target.remove(shape).await.map_err(|t| self.masker.trouble(t))
    }
}

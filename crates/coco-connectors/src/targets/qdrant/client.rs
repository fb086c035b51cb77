//! Creates the collection of a target, and writes points to it.

use async_trait::async_trait;
use qdrant_client::qdrant::{
    CollectionInfo, DeleteCollection, DeletePointsBuilder, GetCollectionInfoRequest, PointId,
    PointStruct, PointsOperationResponse, ScrollResponse, UpdateStatus, UpsertPointsBuilder,
};
use tonic::{Code, Status};

use super::config::Config;
use super::connection::Connection;
use super::error::{self, RowError};
use super::layout::Layout;
use super::verify::{self, HeldPoint};
use super::{collection, encode};
use crate::targets::options::Access;
use crate::targets::{Prepared, Target, changed_meanwhile};
use coco_core::change::{Change, DeliveryError, RejectedChange, TargetSchema};
use coco_core::key_range::{HeldRow, KeyRange, PartDigests, PartSums, RangeSet};

/// A client of one Qdrant server.
pub struct Client {
    connection: Connection,
}

impl Client {
    /// Checks the options, without connecting.
    pub fn new(access: &Access) -> Result<Client, DeliveryError> {
        Ok(Client { connection: Connection::new(Config::of(access)?) })
    }

    /// Returns the server's description of a collection, if it exists.
    async fn info(&mut self, collection: &str) -> Result<Option<CollectionInfo>, Status> {
        let request = GetCollectionInfoRequest { collection_name: collection.to_owned() };
        let mut collections = self.connection.collections();
        match self.connection.answer(collections.get(request)).await {
            Ok(answer) => Ok(answer.result),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Reports whether the collection exists. Returns an error if it does not fit.
    async fn fits(
        &mut self,
        schema: &TargetSchema,
        layout: &Layout,
    ) -> Result<bool, DeliveryError> {
        let info = self.info(&schema.target).await.map_err(|e| error::of_status(&e))?;
        let Some(info) = info else { return Ok(false) };
        let params = info.config.and_then(|config| config.params);
        let vectors = params.and_then(|params| params.vectors_config);
        match collection::difference(layout, vectors.as_ref()) {
            None => Ok(true),
            Some(difference) => {
                let name = &schema.target;
                Err(DeliveryError::target(
                    "42804",
                    format!("collection \"{name}\" does not match the target"),
                )
                .detail(difference)
                .hint(
                    "Choose another name for the target, adapt its columns and option \"vectors\" \
                     to the collection, or remove the collection.",
                ))
            }
        }
    }

    /// Upserts points, each with the index of its change. If the server rejects the whole request,
    /// bisects it until each failing point is alone.
    async fn upsert(
        &mut self,
        schema: &TargetSchema,
        layout: &Layout,
        points: &[(usize, PointStruct)],
        rejected: &mut Vec<RejectedChange>,
    ) -> Result<(), DeliveryError> {
        let mut waiting = vec![points];
        let mut checked = false;
        while let Some(points) = waiting.pop() {
            if points.is_empty() {
                continue;
            }
            let batch: Vec<PointStruct> = points.iter().map(|(_, point)| point.clone()).collect();
            let request = UpsertPointsBuilder::new(&schema.target, batch).wait(true).build();
            let mut service = self.connection.points();
            let answer = self.connection.answer(service.upsert(request)).await;
            let Err(status) = applied(answer) else { continue };
            if !error::is_row_error(&status) {
                return Err(error::of_status(&status));
            }
            // A collection that was meanwhile recreated differently rejects every point.
            if !checked && !self.fits(schema, layout).await? {
                return Err(error::of_status(&Status::not_found(&schema.target)));
            }
            checked = true;
            if let [(change, _)] = points {
                rejected.push(error::row_error(&status).into_rejected(*change));
            } else {
                let (first, second) = points.split_at(points.len() / 2);
                waiting.extend([second, first]);
            }
        }
        Ok(())
    }

    /// Reads the collection once, and calls `look` for each point.
    async fn scroll(
        &mut self,
        schema: &TargetSchema,
        mut look: impl FnMut(HeldPoint),
    ) -> Result<(), DeliveryError> {
        let layout = layout(schema)?;
        let mut offset = None;
        loop {
            let request = verify::page(schema, &layout, offset);
            let mut service = self.connection.pages();
            let answer = self.connection.answer(service.scroll(request)).await;
            let ScrollResponse { next_page_offset, result, .. } =
                answer.map_err(|status| error::of_status(&status))?;
            // A server that returns no points has reached the end, whatever it says.
            let is_over = result.is_empty();
            let points = result.into_iter();
            points.filter_map(|p| verify::held_row(schema, &layout, p)).for_each(&mut look);
            match next_page_offset {
                Some(next) if !is_over => offset = Some(next),
                _ => return Ok(()),
            }
        }
    }

    async fn delete(
        &mut self,
        schema: &TargetSchema,
        ids: Vec<PointId>,
    ) -> Result<(), DeliveryError> {
        if ids.is_empty() {
            return Ok(());
        }
        let request = DeletePointsBuilder::new(&schema.target).points(ids).wait(true).build();
        let mut service = self.connection.points();
        let answer = self.connection.answer(service.delete(request)).await;
        applied(answer).map_err(|status| error::of_status(&status))
    }
}

#[async_trait]
impl Target for Client {
    async fn exists(&mut self, schema: &TargetSchema) -> Result<bool, DeliveryError> {
        let info = self.info(&schema.target).await.map_err(|e| error::of_status(&e))?;
        Ok(info.is_some())
    }

    async fn prepare(&mut self, schema: &TargetSchema) -> Result<Prepared, DeliveryError> {
        let layout = layout(schema)?;
        if self.fits(schema, &layout).await? {
            return Ok(Prepared::Found);
        }
        let request = collection::create(&schema.target, &layout);
        let mut collections = self.connection.collections();
        let Err(status) = self.connection.answer(collections.create(request)).await else {
            return Ok(Prepared::Made);
        };
        // Another client may have created it meanwhile. The code for that differs between versions.
        let rejected = matches!(status.code(), Code::AlreadyExists | Code::InvalidArgument);
        if rejected && self.fits(schema, &layout).await? {
            return Ok(Prepared::Found);
        }
        Err(error::of_status(&status))
    }

    async fn apply(
        &mut self,
        schema: &TargetSchema,
        changes: &[Change],
    ) -> Result<Vec<RejectedChange>, DeliveryError> {
        let layout = layout(schema)?;
        let (mut points, mut gone, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
        for (place, change) in changes.iter().enumerate() {
            let done = match (change.key.json(), change.row.as_ref().map(|row| row.json())) {
                (Some(key), None) => layout.naming.point_id(schema, key).map(|id| gone.push(id)),
                (Some(key), Some(Some(row))) => encode::point(schema, &layout, key, row)
                    .map(|point| points.push((place, point))),
                _ => Err(RowError::new("HV004", "the change is not encoded as JSON")),
            };
            if let Err(why) = done {
                rejected.push(why.into_rejected(place));
            }
        }
        // Upserts come first, so that a concurrent reader does not miss a row whose key has
        // changed.
        self.upsert(schema, &layout, &points, &mut rejected).await?;
        self.delete(schema, gone).await?;
        Ok(rejected)
    }

    async fn part_digests(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        digits: u32,
    ) -> Result<PartDigests, DeliveryError> {
        let mut sums = PartSums::new(ranges, digits);
        self.scroll(schema, |point| sums.add(point.key, point.row)).await?;
        Ok(sums.finish())
    }

    async fn held_rows(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        most: usize,
    ) -> Result<Vec<HeldRow>, DeliveryError> {
        let (set, mut rows) = (RangeSet::new(ranges), Vec::new());
        let look = |point: HeldPoint| {
            if set.contains(point.key) && rows.len() <= most {
                rows.extend(point.into_row());
            }
        };
        self.scroll(schema, look).await?;
        if rows.len() > most { Err(changed_meanwhile()) } else { Ok(rows) }
    }

    async fn remove(&mut self, schema: &TargetSchema) -> Result<(), DeliveryError> {
        let request =
            DeleteCollection { collection_name: schema.target.clone(), ..Default::default() };
        let mut collections = self.connection.collections();
        match self.connection.answer(collections.delete(request)).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(error::of_status(&status)),
        }
    }
}

fn layout(schema: &TargetSchema) -> Result<Layout, DeliveryError> {
    Layout::of(schema).map_err(|wrong| DeliveryError::target("HV024", wrong))
}

/// Checks that the server has completed an update. It also answers without an error if it has only
/// accepted the update.
fn applied(answer: Result<PointsOperationResponse, Status>) -> Result<(), Status> {
    match answer?.result.map(|r| r.status()) {
        Some(UpdateStatus::Completed) => Ok(()),
        Some(status) => {
            let status = status.as_str_name();
            Err(Status::unavailable(format!("the update's status is {status}, not Completed")))
        }
        None => Err(Status::internal("the answer to an update has no result")),
    }
}

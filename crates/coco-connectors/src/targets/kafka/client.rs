//! A target: its topic, and the producer that sends to it.
//!
//! The order of a key's records:
//!
//! - A producer sends a batch only after the previous batch was acknowledged as a whole. Within a
//!   batch, an idempotent producer neither duplicates nor reorders the records that it retries.
//! - After an error, or if the caller stops waiting, coco drops the producer before it sends
//!   anything else. This purges its queue, closes its connections and ends its threads. So no
//!   record of an older batch is sent after a newer one.
//! - Records that were already passed to the network may still be written. A broker reads them as
//!   soon as it reads that connection. A new producer must first connect, get an id and look up the
//!   topic: three responses of the brokers. So the older records come first, unless the network
//!   delays the end of the closed connection for longer than that. In Kafka, only transactions
//!   would exclude this, and they need a transactional id that nobody else uses. A reader that
//!   needs certainty compares `coco.process_ordinal`: such a record has a smaller ordinal than the
//!   record before it.

use async_trait::async_trait;
use tokio::task::JoinHandle;

use crate::targets::kafka::config::Config;
use crate::targets::kafka::error;
use crate::targets::kafka::producer::Producer;
use crate::targets::kafka::reader::Reader;
use crate::targets::kafka::topic::{self, Admin, Client, Topic};
use crate::targets::options::Access;
use crate::targets::{Prepared, Target};
use coco_core::change::{Change, DeliveryError, RejectedChange, TargetSchema};
use coco_core::key_range::{HeldRow, KeyRange, PartDigests};

/// [`crate::targets::Connector::open`]
pub fn open(access: Access) -> Result<Box<dyn Target>, DeliveryError> {
    let config = Config::new(&access)?;
    Ok(Box::new(Kafka { config, producer: None, admin: None, leaders: None }))
}

struct Kafka {
    config: Config,
    /// `None` while in use, so that a call that ends early drops it.
    producer: Option<Producer>,
    /// The admin client, until the topic is known to exist.
    admin: Option<Client>,
    /// Waits until the brokers know the leaders of a topic that was just created.
    leaders: Option<JoinHandle<()>>,
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(leaders) = self.leaders.take() {
            leaders.abort();
        }
        if let Some(admin) = self.admin.take() {
            topic::drop_in_background(admin);
        }
    }
}

impl Kafka {
    fn producer(&mut self) -> Result<Producer, DeliveryError> {
        match self.producer.take() {
            Some(producer) => Ok(producer),
            None => Producer::open(&self.config),
        }
    }
}

#[async_trait]
impl Target for Kafka {
    async fn exists(&mut self, schema: &TargetSchema) -> Result<bool, DeliveryError> {
        let topic = topic(schema)?;
        let producer = self.producer()?;
        let admin = Admin::new(self.admin.take(), &self.config, &producer)?;
        let found = topic.exists(&admin).await;
        self.admin = Some(admin.client);
        self.producer = Some(producer);
        found
    }

    async fn prepare(&mut self, schema: &TargetSchema) -> Result<Prepared, DeliveryError> {
        let topic = topic(schema)?;
        let producer = self.producer()?;
        let admin = Admin::new(self.admin.take(), &self.config, &producer)?;
        let prepared = topic.prepare(&admin).await;
        topic::drop_in_background(admin.client);
        let prepared = prepared?;
        if prepared == Prepared::Made {
            // The wait runs in the background: a target is opened before there is anything to send.
            let (producer, name) = (producer.clone(), schema.target.clone());
            self.leaders = Some(tokio::spawn(async move { producer.await_leaders(&name).await }));
        }
        self.producer = Some(producer);
        Ok(prepared)
    }

    async fn apply(
        &mut self,
        schema: &TargetSchema,
        changes: &[Change],
    ) -> Result<Vec<RejectedChange>, DeliveryError> {
        let producer = self.producer()?;
        if let Some(leaders) = &mut self.leaders {
            leaders.await.ok();
            self.leaders = None;
        }
        let rejected = deliver(&producer, schema, changes).await?;
        self.producer = Some(producer);
        Ok(rejected)
    }

    async fn part_digests(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        digits: u32,
    ) -> Result<PartDigests, DeliveryError> {
        let producer = self.producer()?;
        let mut reader = Reader::open(&self.config, &producer, schema).await?;
        let parts = reader.part_digests(ranges, digits).await?;
        self.producer = Some(producer);
        Ok(parts)
    }

    async fn held_rows(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        most: usize,
    ) -> Result<Vec<HeldRow>, DeliveryError> {
        let producer = self.producer()?;
        let mut reader = Reader::open(&self.config, &producer, schema).await?;
        let rows = reader.held_rows(schema, ranges, most).await?;
        self.producer = Some(producer);
        Ok(rows)
    }

    async fn remove(&mut self, schema: &TargetSchema) -> Result<(), DeliveryError> {
        let topic = topic(schema)?;
        let producer = self.producer()?;
        let admin = Admin::new(self.admin.take(), &self.config, &producer)?;
        let deleted = topic.delete(&admin).await;
        topic::drop_in_background(admin.client);
        deleted
    }
}

fn topic(schema: &TargetSchema) -> Result<Topic<'_>, DeliveryError> {
    Topic::new(schema).map_err(|why| DeliveryError::target("HV024", why))
}

/// Sends all changes, and finds the rejected rows. A broker rejects all records that were sent
/// together. So rejected records are sent again in halves, until the failing ones are alone.
async fn deliver(
    producer: &Producer,
    schema: &TargetSchema,
    changes: &[Change],
) -> Result<Vec<RejectedChange>, DeliveryError> {
    let mut rejected = Vec::new();
    let mut groups = vec![(0..changes.len()).collect::<Vec<usize>>()];
    while let Some(group) = groups.pop() {
        let failed = producer.send(schema, changes, &group).await?;
        let mut again = Vec::new();
        for failed in failed {
            match error::row_sqlstate(failed.code) {
                Some(sqlstate) if failed.alone || group.len() == 1 => {
                    rejected.push(error::rejected_change(failed.place, failed.code, sqlstate));
                }
                _ => again.push(failed.place),
            }
        }
        let rest = again.split_off(again.len().div_ceil(2));
        groups.extend([rest, again].into_iter().filter(|group| !group.is_empty()));
    }
    Ok(rejected)
}

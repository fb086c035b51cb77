//! A target: its topic, and the producer that sends to it.
//!
//! What holds for the order of a key's records:
//!
//! - While a producer lives, each batch is acknowledged as a whole before the next is sent, and an
//!   idempotent producer neither doubles nor reorders what it tries again within a batch.
//! - After an error, or when a caller gives up waiting, the producer is dropped before anything
//!   else is sent: what it still had queued is purged, its connections are closed, its threads are
//!   gone. So nothing of an older batch is sent after a newer one.
//! - What it had already handed to the network may still be written. A broker takes it up as soon
//!   as it reads that connection, while a new producer has to connect, get an id and look up the
//!   topic before it may send: three answers of the brokers. So the old comes first, unless the
//!   network keeps the end of a closed connection back for longer than that. Nothing in Kafka but
//!   transactions would rule this out, and they take a transactional id that nobody else uses. A
//!   reader that has to be sure compares `coco.process_ordinal`, by which such a record is older
//!   than the one before it.

use async_trait::async_trait;
use tokio::task::JoinHandle;

use crate::targets::kafka::config::Config;
use crate::targets::kafka::error;
use crate::targets::kafka::producer::Producer;
use crate::targets::kafka::topic::{self, Admin, Client, Topic};
use crate::targets::options::Access;
use crate::targets::{Prepared, Target};
use coco_core::change::{Change, DeliveryError, RejectedChange, TargetSchema};

/// [`crate::targets::Connector::open`]
pub fn open(access: Access) -> Result<Box<dyn Target>, DeliveryError> {
    let config = Config::new(&access)?;
    Ok(Box::new(Kafka { config, producer: None, admin: None, leaders: None }))
}

struct Kafka {
    config: Config,
    /// Not there while it is in use: what ends early, drops it.
    producer: Option<Producer>,
    /// What asks for the topic, until it is known to be there.
    admin: Option<Client>,
    /// Ends when it is known who leads a topic that was just made.
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
            // Meanwhile others have something else to do: a target is opened before there is anything to send.
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

/// Sends all, and finds the rows that are refused. A broker refuses all that it was sent together:
/// so the refused are sent again by halves, until those that are at fault are alone.
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

//! One target that a process sends to: the connection to it, and what is on its way.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::outbox::change_batch::ChangeBatch;
use crate::workers::async_runtime::{self, Task, TaskState};
use coco_connectors::targets::options::Access;
use coco_connectors::targets::pre_commit_stream::{CommitSignal, RowSender, RowStream};
use coco_connectors::targets::{Connector, Prepared, Target, pre_commit_stream};
use coco_core::change::{
    Change, DeliveryError, Encoding, ErrorScope, RejectedChange, TargetSchema,
};

/// What a target is to be, and what it is reached with.
pub struct ResolvedTarget {
    pub shape: TargetSchema,
    pub connector: &'static Connector,
    pub access: Access,
    /// Whether it is noted that coco makes it.
    pub made: bool,
}

/// A target, with one batch on its way at a time.
pub struct TargetChannel {
    pub flow: String,
    pub shape: Arc<TargetSchema>,
    pub connector: &'static Connector,
    /// What the connection was opened with.
    access: Access,
    made: bool,
    /// While nothing is on its way over it.
    connection: Option<Connection>,
    way: Option<InFlight>,
    /// What is sent after that, read meanwhile.
    pub next: Option<ChangeBatch>,
    used: Instant,
}

enum Connection {
    /// The target was looked for, and not made or checked yet.
    Open(Box<dyn Target>),
    Prepared(Box<dyn Target>),
}

/// What the other threads are at.
struct InFlight {
    errand: Job,
    /// `None`: the target is being opened, for what is to come; or rows are sent ahead that are not noted yet.
    batch: Option<ChangeBatch>,
    task: Task<JobResult>,
}

enum Job {
    /// To see whether the target is there.
    Look,
    /// To make it where it is not, and to bring the batch. `noted`: that it is made was noted just before.
    Deliver { noted: bool },
    /// To bring rows that are not noted yet; what says that they are.
    Ahead(Option<CommitSignal>),
}

/// What is back from there.
enum JobResult {
    /// Whether the target is there.
    Look(Result<(Box<dyn Target>, bool), DeliveryError>),
    Delivery {
        client: Option<Box<dyn Target>>,
        prepared: Option<Prepared>,
        /// It could not be prepared, and is not there.
        absent: bool,
        result: Result<Vec<RejectedChange>, DeliveryError>,
    },
    /// Whether it has the rows.
    Ahead(Result<(Box<dyn Target>, bool), DeliveryError>),
}

/// What became of what was sent.
pub struct DeliveredBatch {
    /// `None`: the target was opened only.
    pub batch: Option<ChangeBatch>,
    /// That coco has made the target is to be noted, or not to be any more.
    pub made: Option<bool>,
    pub result: Result<Vec<RejectedChange>, DeliveryError>,
}

/// Where what was begun is.
pub enum ChannelEvent {
    /// Nothing was.
    NoWay,
    TheWay,
    /// Before a target is made: whether it is there, as far as that can be known. [`TargetChannel::make`] goes on with the
    /// batch.
    Look(bool, Option<ChangeBatch>),
    Arrival(DeliveredBatch),
    /// The target has nothing of what was sent ahead; if there is a reason, why.
    Return(Option<DeliveryError>),
}

impl TargetChannel {
    pub fn new(flow: &str, to: ResolvedTarget) -> TargetChannel {
        TargetChannel {
            flow: flow.to_owned(),
            shape: Arc::new(to.shape),
            connector: to.connector,
            access: to.access,
            made: to.made,
            connection: None,
            way: None,
            next: None,
            used: Instant::now(),
        }
    }

    /// The same target; closed, where what it was opened with, or prepared for, is not what it is now.
    pub fn reach(&mut self, to: ResolvedTarget) -> &mut TargetChannel {
        if *self.shape != to.shape || self.access != to.access {
            self.shape = Arc::new(to.shape);
            self.access = to.access;
            self.close();
        }
        self.made = to.made;
        self
    }

    /// Has a batch sent; without one, has the target opened. Nothing else is on its way. Before coco makes a target
    /// it looks.
    pub fn begin(&mut self, batch: Option<ChangeBatch>) -> io::Result<()> {
        if self.connection.is_some() || self.made {
            return self.deliver(batch, false);
        }
        let work = look(self.connector, self.access.clone(), self.shape.clone());
        self.go(Job::Look, batch, work)
    }

    /// Goes on where the target was looked for, with what was to be sent. `noted`: that it is made.
    pub fn make(&mut self, batch: Option<ChangeBatch>, noted: bool) -> io::Result<()> {
        self.made |= noted;
        self.deliver(batch, noted)
    }

    fn deliver(&mut self, mut batch: Option<ChangeBatch>, noted: bool) -> io::Result<()> {
        let changes = batch.as_mut().map(|batch| std::mem::take(&mut batch.changes));
        let work = deliver(
            self.connection.take(),
            self.connector,
            self.access.clone(),
            self.shape.clone(),
            changes.unwrap_or_default(),
        );
        self.go(Job::Deliver { noted }, batch, work)
    }

    /// Whether rows can be sent to it before they are noted.
    pub fn takes_ahead(&self) -> bool {
        matches!(self.connection, Some(Connection::Prepared(_)))
            && self.connector.encoding == Encoding::Binary
    }

    /// Begins to send rows so, where it takes them.
    pub fn begin_ahead(&mut self) -> io::Result<Option<RowSender>> {
        let Some(Connection::Prepared(client)) = self.connection.take() else { return Ok(None) };
        let (outlet, note, arriving) = pre_commit_stream::channel();
        self.go(Job::Ahead(Some(note)), None, fill(client, self.shape.clone(), arriving))?;
        Ok(Some(outlet))
    }

    fn go(
        &mut self,
        errand: Job,
        batch: Option<ChangeBatch>,
        work: impl Future<Output = JobResult> + Send + 'static,
    ) -> io::Result<()> {
        self.used = Instant::now();
        self.way = Some(InFlight { errand, batch, task: async_runtime::spawn(work)? });
        Ok(())
    }

    /// What was sent ahead is noted, up to a position.
    pub fn noted(&mut self, upto: i64) {
        if let Some(way) = &mut self.way
            && let Job::Ahead(note) = &mut way.errand
            && let Some(note) = note.take()
        {
            way.batch = Some(ChangeBatch::sent(upto));
            note.confirm();
        }
    }

    /// Has taken back what was sent ahead, unless it is noted.
    pub fn take_back(&mut self) {
        if let Some(InFlight { errand: Job::Ahead(note), .. }) = &mut self.way {
            *note = None;
        }
    }

    /// Whether what was begun is back.
    pub fn arrived(&mut self) -> ChannelEvent {
        let Some(way) = self.way.take() else { return ChannelEvent::NoWay };
        let back = match way.task.state() {
            TaskState::Running => {
                self.way = Some(way);
                return ChannelEvent::TheWay;
            }
            TaskState::Done(back) => back,
            TaskState::Lost => {
                let trouble = DeliveryError::target("XX000", "the connector has failed");
                return match way.errand {
                    Job::Ahead(_) => ChannelEvent::Return(Some(trouble)),
                    _ => ChannelEvent::Arrival(DeliveredBatch {
                        batch: way.batch,
                        made: None,
                        result: Err(trouble),
                    }),
                };
            }
        };
        self.used = Instant::now();
        let noted = matches!(way.errand, Job::Deliver { noted: true });
        match back {
            JobResult::Look(Ok((client, there))) => {
                self.connection = Some(Connection::Open(client));
                ChannelEvent::Look(there, way.batch)
            }
            JobResult::Look(Err(trouble)) => ChannelEvent::Arrival(DeliveredBatch {
                batch: way.batch,
                made: None,
                result: Err(trouble),
            }),
            JobResult::Ahead(Ok((client, taken))) => {
                self.connection = Some(Connection::Prepared(client));
                match taken {
                    true => ChannelEvent::Arrival(DeliveredBatch {
                        batch: way.batch,
                        made: None,
                        result: Ok(vec![]),
                    }),
                    false => ChannelEvent::Return(None),
                }
            }
            JobResult::Ahead(Err(trouble)) => ChannelEvent::Return(Some(trouble)),
            JobResult::Delivery { client, prepared, absent, result } => {
                self.connection = client.map(Connection::Prepared);
                let made = match prepared {
                    Some(Prepared::Made) if !noted => Some(true),
                    // Somebody was quicker.
                    Some(Prepared::Found) if noted => Some(false),
                    None if noted && absent => Some(false),
                    _ => None,
                };
                ChannelEvent::Arrival(DeliveredBatch { batch: way.batch, made, result })
            }
        }
    }

    /// Whether anything is on its way.
    pub fn is_busy(&self) -> bool {
        self.way.is_some()
    }

    /// Whether it is worth to wait before there is something to send: until it is known whether the target is there,
    /// or, where it takes rows ahead, until it does.
    pub fn is_opening(&self) -> bool {
        self.way.as_ref().is_some_and(|way| match way.errand {
            Job::Look => true,
            Job::Deliver { .. } => {
                way.batch.is_none() && self.connector.encoding == Encoding::Binary
            }
            Job::Ahead(_) => false,
        })
    }

    /// Whether the other threads are at it.
    pub fn is_running(&self) -> bool {
        self.way.as_ref().is_some_and(|way| matches!(way.task.state(), TaskState::Running))
    }

    /// The batch that is on its way; `None` where the target is opened, or nothing of it is noted.
    pub fn batch(&self) -> Option<&ChangeBatch> {
        self.way.as_ref()?.batch.as_ref()
    }

    /// How long nothing was sent.
    pub fn idle(&self) -> Duration {
        self.used.elapsed()
    }

    fn close(&mut self) {
        if let Some(Connection::Open(client) | Connection::Prepared(client)) =
            self.connection.take()
        {
            async_runtime::discard(client);
        }
    }
}

impl Drop for TargetChannel {
    fn drop(&mut self) {
        self.close();
    }
}

/// What is done on the other threads: what is to be seen before a target is made.
async fn look(
    connector: &'static Connector,
    access: Access,
    shape: Arc<TargetSchema>,
) -> JobResult {
    let looked = async {
        let mut client = connector.connect(access)?;
        let there = client.exists(&shape).await?;
        Ok((client, there))
    };
    JobResult::Look(looked.await)
}

/// What is sent, and before that the target prepared, if it is not yet.
async fn deliver(
    connection: Option<Connection>,
    connector: &'static Connector,
    access: Access,
    shape: Arc<TargetSchema>,
    changes: Vec<Change>,
) -> JobResult {
    let prepare = async |mut client: Box<dyn Target>| match client.prepare(&shape).await {
        Ok(prepared) => (Ok(client), Some(prepared), false),
        Err(trouble) => {
            // Not of a server that does not answer.
            let absent =
                trouble.scope == ErrorScope::Target && client.exists(&shape).await == Ok(false);
            (Err(trouble), None, absent)
        }
    };
    let (opened, prepared, absent) = match connection {
        Some(Connection::Prepared(client)) => (Ok(client), None, false),
        Some(Connection::Open(client)) => prepare(client).await,
        None => match connector.connect(access) {
            Ok(client) => prepare(client).await,
            Err(trouble) => (Err(trouble), None, false),
        },
    };
    let (client, result) = match opened {
        Ok(client) if changes.is_empty() => (Some(client), Ok(vec![])),
        Ok(mut client) => {
            let result = client.apply(&shape, &changes).await;
            (result.is_ok().then_some(client), result)
        }
        Err(trouble) => (None, Err(trouble)),
    };
    JobResult::Delivery { client, prepared, absent, result }
}

/// What is sent ahead.
async fn fill(
    mut client: Box<dyn Target>,
    shape: Arc<TargetSchema>,
    mut rows: RowStream,
) -> JobResult {
    JobResult::Ahead(client.load_stream(&shape, &mut rows).await.map(|taken| (client, taken)))
}

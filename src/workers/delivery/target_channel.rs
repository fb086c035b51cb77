//! The connection to one target, and the jobs that use it on other threads.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::outbox::change_batch::ChangeBatch;
use crate::pg::error::Error;
use crate::workers::async_runtime::{self, Task, TaskState};
use crate::workers::delivery::resolved_target::ResolvedTarget;
use crate::workers::transaction::TransactionError;
use coco_connectors::targets::options::Access;
use coco_connectors::targets::pre_commit_stream::{CommitSignal, RowSender, RowStream};
use coco_connectors::targets::{Connector, Prepared, Target, pre_commit_stream};
use coco_core::change::{
    Change, DeliveryError, Encoding, ErrorScope, RejectedChange, TargetSchema,
};
use coco_core::target_delivery::ports::{
    DeliveryChannel, DeliveryOutcome, Existence, Preparation, StartedStream, StreamOutcome,
};

/// The connection to one target. While a job runs, the job has the connection.
pub struct TargetChannel {
    pub schema: Arc<TargetSchema>,
    pub connector: &'static Connector,
    /// The options that the connection was opened with.
    access: Access,
    /// Whether coco has recorded that it manages the target.
    is_managed: bool,
    connection: Option<Connection>,
    used: Instant,
}

enum Connection {
    /// The existence of the target was checked. The target is not prepared yet.
    Open(Box<dyn Target>),
    Prepared(Box<dyn Target>),
}

/// The result of a check: the connection, and whether the target exists.
pub struct CheckEnd {
    client: Box<dyn Target>,
    existence: Existence,
}

/// The result of a delivery.
pub struct DeliveryEnd {
    /// The connection, if it can be used again.
    client: Option<Box<dyn Target>>,
    preparation: Preparation,
    result: Result<Vec<RejectedChange>, DeliveryError>,
}

/// The result of a stream: the connection, and whether the target has the rows.
pub struct StreamEnd {
    client: Box<dyn Target>,
    is_accepted: bool,
}

impl DeliveryChannel for TargetChannel {
    type Endpoint = ResolvedTarget;
    type Batch = ChangeBatch;
    type Error = TransactionError;
    type CheckJob = Task<Result<CheckEnd, DeliveryError>>;
    type DeliveryJob = Task<DeliveryEnd>;
    type StreamJob = Task<Result<StreamEnd, DeliveryError>>;
    type RowSender = RowSender;
    type CommitSignal = CommitSignal;

    fn new(to: ResolvedTarget) -> TargetChannel {
        TargetChannel {
            schema: Arc::new(to.schema),
            connector: to.connector,
            access: to.access,
            is_managed: to.made,
            connection: None,
            used: Instant::now(),
        }
    }

    fn update(&mut self, to: ResolvedTarget) {
        if *self.schema != to.schema || self.access != to.access {
            self.schema = Arc::new(to.schema);
            self.access = to.access;
            self.close();
        }
        self.is_managed = to.made;
    }

    fn must_check(&self) -> bool {
        self.connection.is_none() && !self.is_managed
    }

    fn start_check(&mut self) -> Result<Self::CheckJob, TransactionError> {
        self.spawn(check(self.connector, self.access.clone(), self.schema.clone()))
    }

    fn poll_check(&mut self, job: &mut Self::CheckJob) -> Poll<Result<Existence, DeliveryError>> {
        self.poll(job, || Err(connector_failed())).map(|end| {
            end.map(|CheckEnd { client, existence }| {
                self.connection = Some(Connection::Open(client));
                existence
            })
        })
    }

    fn start_delivery(
        &mut self,
        batch: Option<&mut ChangeBatch>,
    ) -> Result<Self::DeliveryJob, TransactionError> {
        let changes = batch.map(|batch| std::mem::take(&mut batch.changes)).unwrap_or_default();
        let connection = self.connection.take();
        let (access, schema) = (self.access.clone(), self.schema.clone());
        self.spawn(deliver(connection, self.connector, access, schema, changes))
    }

    fn poll_delivery(&mut self, job: &mut Self::DeliveryJob) -> Poll<DeliveryOutcome> {
        let lost = || DeliveryEnd {
            client: None,
            preparation: Preparation::None,
            result: Err(connector_failed()),
        };
        self.poll(job, lost).map(|DeliveryEnd { client, preparation, result }| {
            self.connection = client.map(Connection::Prepared);
            DeliveryOutcome { preparation, result }
        })
    }

    fn supports_streams(&self) -> bool {
        self.connector.encoding == Encoding::Binary
    }

    fn can_stream(&self) -> bool {
        self.supports_streams() && matches!(self.connection, Some(Connection::Prepared(_)))
    }

    fn start_stream(&mut self) -> Result<Option<StartedStream<TargetChannel>>, TransactionError> {
        let Some(Connection::Prepared(client)) = self.connection.take() else { return Ok(None) };
        let (sink, signal, rows) = pre_commit_stream::channel();
        let job = self.spawn(stream(client, self.schema.clone(), rows))?;
        Ok(Some(StartedStream { job, sink, signal }))
    }

    fn poll_stream(
        &mut self,
        job: &mut Self::StreamJob,
    ) -> Poll<Result<StreamOutcome, DeliveryError>> {
        self.poll(job, || Err(connector_failed())).map(|end| {
            end.map(|StreamEnd { client, is_accepted }| {
                self.connection = Some(Connection::Prepared(client));
                match is_accepted {
                    true => StreamOutcome::Accepted,
                    false => StreamOutcome::NotAccepted,
                }
            })
        })
    }

    fn signal_commit(signal: CommitSignal) {
        signal.confirm();
    }

    fn idle_for(&self) -> Duration {
        self.used.elapsed()
    }
}

impl TargetChannel {
    fn spawn<T: Send + 'static>(
        &mut self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<Task<T>, TransactionError> {
        self.used = Instant::now();
        async_runtime::spawn(work).map_err(|e| {
            TransactionError::from(Error::internal(format!("could not start a thread: {e}")))
        })
    }

    /// Returns the result of a job; `lost` if the job panicked.
    fn poll<T>(&mut self, job: &Task<T>, lost: impl FnOnce() -> T) -> Poll<T> {
        let end = match job.state() {
            TaskState::Running => return Poll::Pending,
            TaskState::Done(end) => end,
            TaskState::Lost => lost(),
        };
        self.used = Instant::now();
        Poll::Ready(end)
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

fn connector_failed() -> DeliveryError {
    DeliveryError::target("XX000", "the connector has failed")
}

/// Connects, and reports whether the target exists.
async fn check(
    connector: &'static Connector,
    access: Access,
    schema: Arc<TargetSchema>,
) -> Result<CheckEnd, DeliveryError> {
    let mut client = connector.connect(access)?;
    let existence = match client.exists(&schema).await? {
        true => Existence::Exists,
        false => Existence::Missing,
    };
    Ok(CheckEnd { client, existence })
}

/// Connects and prepares the target if necessary, and delivers the changes.
async fn deliver(
    connection: Option<Connection>,
    connector: &'static Connector,
    access: Access,
    schema: Arc<TargetSchema>,
    changes: Vec<Change>,
) -> DeliveryEnd {
    let (opened, preparation) = match connection {
        Some(Connection::Prepared(client)) => (Ok(client), Preparation::None),
        Some(Connection::Open(client)) => prepare(client, &schema).await,
        None => match connector.connect(access) {
            Ok(client) => prepare(client, &schema).await,
            Err(error) => (Err(error), Preparation::None),
        },
    };
    let (client, result) = match opened {
        Ok(client) if changes.is_empty() => (Some(client), Ok(vec![])),
        Ok(mut client) => {
            let result = client.apply(&schema, &changes).await;
            (result.is_ok().then_some(client), result)
        }
        Err(error) => (None, Err(error)),
    };
    DeliveryEnd { client, preparation, result }
}

/// Creates the target if it does not exist, or checks that it fits.
async fn prepare(
    mut client: Box<dyn Target>,
    schema: &TargetSchema,
) -> (Result<Box<dyn Target>, DeliveryError>, Preparation) {
    match client.prepare(schema).await {
        Ok(Prepared::Made) => (Ok(client), Preparation::Created),
        Ok(Prepared::Found) => (Ok(client), Preparation::Found),
        Err(error) => {
            // A server that does not answer cannot say whether the target exists.
            let is_absent =
                error.scope == ErrorScope::Target && client.exists(schema).await == Ok(false);
            (Err(error), if is_absent { Preparation::Absent } else { Preparation::None })
        }
    }
}

/// Sends rows that are not committed here yet.
async fn stream(
    mut client: Box<dyn Target>,
    schema: Arc<TargetSchema>,
    mut rows: RowStream,
) -> Result<StreamEnd, DeliveryError> {
    let is_accepted = client.load_stream(&schema, &mut rows).await?;
    Ok(StreamEnd { client, is_accepted })
}

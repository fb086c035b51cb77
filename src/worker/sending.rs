//! One target that a process sends to: the connection to it, and what is on its way.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::runtime::{self, State, Task};
use crate::catalog::external::batch::Batch;
use crate::catalog::external::feed::Ahead;
use crate::engine::delivery::{Change, Encoding, Refused, Shape, Trouble, Values};
use crate::targets::ahead::{self, Arriving, Note, Outlet};
use crate::targets::options::Access;
use crate::targets::{Connector, Prepared, Target};

/// What a target is to be, and what it is reached with.
pub struct Reached {
    pub shape: Shape,
    pub connector: &'static Connector,
    pub access: Access,
}

/// A target, with one batch on its way at a time.
pub struct Sending {
    pub flow: String,
    pub shape: Arc<Shape>,
    pub connector: &'static Connector,
    /// What the connection was opened with.
    access: Access,
    /// The connection, while nothing is on its way over it.
    client: Option<Box<dyn Target>>,
    way: Option<Way>,
    /// What is sent after that, read meanwhile.
    pub next: Option<Batch>,
    used: Instant,
}

/// What the other threads are at.
struct Way {
    /// `None`: the target is being opened, for what is to come; or rows are sent ahead that are not noted yet.
    batch: Option<Batch>,
    ahead: bool,
    /// Says of rows that are sent ahead that they are noted.
    note: Option<Note>,
    task: Task<Arrived>,
}

/// What is back from there.
pub struct Arrived {
    client: Option<Box<dyn Target>>,
    pub prepared: Option<Prepared>,
    pub result: Result<Vec<Refused>, Trouble>,
    /// Whether the target has what was sent, but for what it refused.
    taken: bool,
}

/// Where what was begun is.
pub enum On {
    /// Nothing was.
    NoWay,
    TheWay,
    /// It is back; with the batch, unless the target was opened only.
    Arrival(Option<Batch>, Arrived),
    /// The target has nothing of what was sent ahead.
    Return(Arrived),
}

impl Ahead for Outlet {
    fn has_room(&self) -> bool {
        Outlet::has_room(self)
    }

    fn put(&self, rows: Vec<Values>) -> bool {
        Outlet::put(self, rows)
    }
}

impl Sending {
    pub fn new(flow: &str, to: Reached) -> Sending {
        Sending {
            flow: flow.to_owned(),
            shape: Arc::new(to.shape),
            connector: to.connector,
            access: to.access,
            client: None,
            way: None,
            next: None,
            used: Instant::now(),
        }
    }

    /// The same target; closed, where what it was opened with, or prepared for, is not what it is now.
    pub fn reach(&mut self, to: Reached) -> &mut Sending {
        if *self.shape != to.shape || self.access != to.access {
            self.shape = Arc::new(to.shape);
            self.access = to.access;
            self.close();
        }
        self
    }

    /// Has a batch sent; without one, has the target opened. Nothing else is on its way.
    pub fn begin(&mut self, mut batch: Option<Batch>) -> io::Result<()> {
        self.used = Instant::now();
        let changes = batch.as_mut().map(|batch| std::mem::take(&mut batch.changes));
        let work = deliver(
            self.client.take(),
            self.connector,
            self.access.clone(),
            self.shape.clone(),
            changes.unwrap_or_default(),
        );
        self.way = Some(Way { batch, ahead: false, note: None, task: runtime::spawn(work)? });
        Ok(())
    }

    /// Whether rows can be sent to it before they are noted.
    pub fn takes_ahead(&self) -> bool {
        self.client.is_some() && self.connector.encoding == Encoding::Binary
    }

    /// Begins to send rows so, where it takes them.
    pub fn begin_ahead(&mut self) -> io::Result<Option<Outlet>> {
        let Some(client) = self.client.take() else { return Ok(None) };
        self.used = Instant::now();
        let (outlet, note, arriving) = ahead::way();
        let task = runtime::spawn(fill(client, self.shape.clone(), arriving))?;
        self.way = Some(Way { batch: None, ahead: true, note: Some(note), task });
        Ok(Some(outlet))
    }

    /// What was sent ahead is noted, up to a position.
    pub fn noted(&mut self, upto: i64) {
        if let Some(way) = &mut self.way
            && let Some(note) = way.note.take()
        {
            way.batch = Some(Batch::sent(upto));
            note.noted();
        }
    }

    /// Has taken back what was sent ahead, unless it is noted.
    pub fn take_back(&mut self) {
        if let Some(way) = &mut self.way {
            way.note = None;
        }
    }

    /// Whether what was begun is back.
    pub fn arrived(&mut self) -> On {
        let Some(way) = self.way.take() else { return On::NoWay };
        let arrived = match way.task.state() {
            State::Running => {
                self.way = Some(way);
                return On::TheWay;
            }
            State::Done(arrived) => arrived,
            State::Lost => {
                let result = Err(Trouble::target("XX000", "the connector has failed"));
                Arrived { client: None, prepared: None, result, taken: false }
            }
        };
        self.used = Instant::now();
        match way.ahead && !arrived.taken {
            true => On::Return(arrived),
            false => On::Arrival(way.batch, arrived),
        }
    }

    /// Keeps the connection for what comes next.
    pub fn keep(&mut self, arrived: Arrived) {
        self.client = arrived.client;
    }

    /// Whether anything is on its way.
    pub fn is_busy(&self) -> bool {
        self.way.is_some()
    }

    /// Whether it is being opened, and nothing is sent yet.
    pub fn is_opening(&self) -> bool {
        self.way.as_ref().is_some_and(|way| way.batch.is_none() && !way.ahead)
    }

    /// Whether the other threads are at it.
    pub fn is_running(&self) -> bool {
        self.way.as_ref().is_some_and(|way| matches!(way.task.state(), State::Running))
    }

    /// The batch that is on its way; `None` where the target is opened, or nothing of it is noted.
    pub fn batch(&self) -> Option<&Batch> {
        self.way.as_ref()?.batch.as_ref()
    }

    /// How long nothing was sent.
    pub fn idle(&self) -> Duration {
        self.used.elapsed()
    }

    fn close(&mut self) {
        if let Some(client) = self.client.take() {
            runtime::discard(client);
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.close();
    }
}

/// What is done on the other threads.
async fn deliver(
    client: Option<Box<dyn Target>>,
    connector: &'static Connector,
    access: Access,
    shape: Arc<Shape>,
    changes: Vec<Change>,
) -> Arrived {
    let mut prepared = None;
    let opened = match client {
        Some(client) => Ok(client),
        None => open(connector, access, &shape).await.map(|(client, found)| {
            prepared = Some(found);
            client
        }),
    };
    match opened {
        Ok(client) if changes.is_empty() => {
            Arrived { client: Some(client), prepared, result: Ok(vec![]), taken: true }
        }
        Ok(mut client) => {
            let result = client.apply(&shape, &changes).await;
            let taken = result.is_ok();
            Arrived { client: taken.then_some(client), prepared, result, taken }
        }
        Err(trouble) => Arrived { client: None, prepared, result: Err(trouble), taken: false },
    }
}

/// The same for rows that are sent ahead.
async fn fill(mut client: Box<dyn Target>, shape: Arc<Shape>, mut rows: Arriving) -> Arrived {
    match client.fill(&shape, &mut rows).await {
        Ok(taken) => Arrived { client: Some(client), prepared: None, result: Ok(vec![]), taken },
        Err(trouble) => {
            Arrived { client: None, prepared: None, result: Err(trouble), taken: false }
        }
    }
}

async fn open(
    connector: &'static Connector,
    access: Access,
    shape: &Shape,
) -> Result<(Box<dyn Target>, Prepared), Trouble> {
    let mut client = (connector.open)(access)?;
    let prepared = client.prepare(shape).await?;
    Ok((client, prepared))
}

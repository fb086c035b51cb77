//! A target's table, and the connection to its server.

use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use tokio_postgres::Statement;

use super::bisect::Bisection;
use super::config::Config;
use super::copy_stream::CopyStream;
use super::encode::{self, Tuples};
use super::error::{RowError, StatementError};
use super::names::quoted;
use super::session::Session;
use super::statements::{self, Staged};
use super::table::{self, Table};
use super::verify::VerifiedTable;
use crate::targets::pre_commit_stream::RowStream;
use crate::targets::{Prepared, Target};
use coco_core::change::{Change, DeliveryError, RejectedChange, TargetSchema};
use coco_core::key_range::{HeldRow, KeyRange, PartDigests};

/// Number of attempts at a transaction that fails because of concurrent transactions.
const ATTEMPTS: u32 = 4;
/// The pause before the second attempt. It doubles before each further attempt.
const PAUSE: Duration = Duration::from_millis(20);

pub struct PostgresTarget {
    config: Config,
    session: Option<Session>,
    prepared: Option<PreparedTable>,
    verified: Option<VerifiedTable>,
}

/// The state of a prepared table, kept for the next batch.
struct PreparedTable {
    table: Table,
    /// Whether rows are probably new to the table. They are then copied directly into it.
    likely_new: bool,
    direct: Option<Statement>,
    /// Existing temporary tables, with the statement that fills each.
    staging: Vec<(Staged, Statement)>,
}

impl PostgresTarget {
    pub fn new(config: Config) -> PostgresTarget {
        PostgresTarget { config, session: None, prepared: None, verified: None }
    }

    async fn connect(&mut self) -> Result<&Session, DeliveryError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.config).await?,
        };
        Ok(self.session.insert(session))
    }

    /// Returns the session, and the prepared table with the statements that read it.
    async fn verified(
        &mut self,
        schema: &TargetSchema,
    ) -> Result<(&Session, &VerifiedTable), DeliveryError> {
        let (Some(session), Some(ready)) = (&self.session, &self.prepared) else {
            return Err(unprepared());
        };
        let table = match self.verified.take() {
            Some(table) => table,
            None => VerifiedTable::new(session, schema, &ready.table).await?,
        };
        Ok((session, self.verified.insert(table)))
    }
}

#[async_trait]
impl Target for PostgresTarget {
    async fn exists(&mut self, schema: &TargetSchema) -> Result<bool, DeliveryError> {
        table::exists(self.connect().await?, schema).await
    }

    async fn prepare(&mut self, schema: &TargetSchema) -> Result<Prepared, DeliveryError> {
        let session = self.connect().await?;
        let (table, prepared) = table::prepare(session, schema).await?;
        let likely_new = table.is_new && table.takes_copy;
        self.prepared =
            Some(PreparedTable { table, likely_new, direct: None, staging: Vec::new() });
        Ok(prepared)
    }

    async fn apply(
        &mut self,
        schema: &TargetSchema,
        changes: &[Change],
    ) -> Result<Vec<RejectedChange>, DeliveryError> {
        let (Some(session), Some(ready)) = (&self.session, &mut self.prepared) else {
            return Err(unprepared());
        };
        let batch = Batch::new(schema, changes);
        let mut pause = PAUSE;
        for _ in 1..ATTEMPTS {
            match ready.write(session, &batch).await {
                Err(StatementError::Retry(_)) => {
                    session.run("rollback").await.map_err(StatementError::into_delivery_error)?;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                done => return done.map_err(StatementError::into_delivery_error),
            }
        }
        ready.write(session, &batch).await.map_err(StatementError::into_delivery_error)
    }

    async fn load_stream(
        &mut self,
        _shape: &TargetSchema,
        rows: &mut RowStream,
    ) -> Result<bool, DeliveryError> {
        let (Some(session), Some(ready)) = (&self.session, &mut self.prepared) else {
            return Err(unprepared());
        };
        if !ready.likely_new {
            return Ok(false);
        }
        match ready.copy_stream(session, rows).await {
            // A row exists already, or is rejected.
            Err(StatementError::Row(_)) => {
                ready.likely_new = false;
                session.run("rollback").await.map_err(StatementError::into_delivery_error)?;
                Ok(false)
            }
            done => done.map_err(StatementError::into_delivery_error),
        }
    }

    async fn part_digests(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        digits: u32,
    ) -> Result<PartDigests, DeliveryError> {
        let (session, table) = self.verified(schema).await?;
        table.part_digests(session, ranges, digits).await
    }

    async fn held_rows(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        most: usize,
    ) -> Result<Vec<HeldRow>, DeliveryError> {
        let (session, table) = self.verified(schema).await?;
        table.held_rows(session, ranges, most).await
    }

    async fn remove(&mut self, schema: &TargetSchema) -> Result<(), DeliveryError> {
        let session = self.connect().await?;
        table::remove(session, schema).await?;
        self.prepared = None;
        Ok(())
    }
}

fn unprepared() -> DeliveryError {
    DeliveryError::target("55000", "the target was not prepared")
}

/// The changes of a batch, each with its index.
struct Batch<'a> {
    len: usize,
    rows: Vec<(usize, &'a [u8])>,
    gone: Vec<(usize, &'a [u8])>,
    /// Changes that cannot be sent.
    malformed: Vec<RejectedChange>,
}

impl<'a> Batch<'a> {
    fn new(schema: &TargetSchema, changes: &'a [Change]) -> Batch<'a> {
        let mut batch =
            Batch { len: changes.len(), rows: Vec::new(), gone: Vec::new(), malformed: Vec::new() };
        for (place, change) in changes.iter().enumerate() {
            let (of, fields) = match &change.row {
                Some(row) => (&mut batch.rows, encode::fields(row, schema.columns.len())),
                None => (&mut batch.gone, encode::fields(&change.key, schema.key.len())),
            };
            match fields {
                Some(fields) => of.push((place, fields)),
                None => batch.malformed.push(RejectedChange {
                    change: place,
                    sqlstate: "22P03".to_owned(),
                    message: "values do not have the form of the target's columns".to_owned(),
                }),
            }
        }
        batch
    }

    /// Returns the temporary tables that the batch needs, with the changes for each.
    fn staged(&self) -> impl Iterator<Item = (Staged, &[(usize, &'a [u8])])> {
        [(Staged::Rows, &self.rows[..]), (Staged::Gone, &self.gone[..])]
            .into_iter()
            .filter(|(_, changes)| !changes.is_empty())
    }
}

/// Maximum number of times that a batch is written again without conflicting rows.
const ROUNDS: usize = 8;

/// The treatment of rows that may conflict.
#[derive(Default)]
struct ConflictPass {
    /// Existing rows that change one of these columns are deleted before the others are written.
    displaced: Vec<String>,
    /// Changes that are not written.
    left_out: BTreeSet<usize>,
}

/// Reports whether a row may be rejected because of another row.
fn is_conflict(rejected: &RejectedChange) -> bool {
    matches!(rejected.sqlstate.as_str(), "23505" | "23P01")
}

/// How to write a batch that may contain rejected rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteStrategy {
    /// As a whole, or not at all. Almost all batches take this path.
    AtOnce,
    /// Each statement in a savepoint, bisected if it fails.
    Bisect,
}

impl PreparedTable {
    /// Writes a batch in a transaction. After an error, the transaction may still be open.
    async fn write(
        &mut self,
        session: &Session,
        batch: &Batch<'_>,
    ) -> Result<Vec<RejectedChange>, StatementError> {
        let mut rejected = batch.malformed.clone();
        if batch.rows.is_empty() && batch.gone.is_empty() {
            return Ok(rejected);
        }
        if self.likely_new && batch.gone.is_empty() {
            match self.copy_directly(session, batch).await {
                Ok(()) => return Ok(rejected),
                // A row exists already, or is rejected.
                Err(StatementError::Row(_)) => {
                    self.likely_new = false;
                    session.run("rollback").await?;
                }
                Err(fault) => return Err(fault),
            }
        }
        for (staged, _) in batch.staged() {
            self.make_staging(session, staged).await?;
        }
        match self
            .write_staged(session, batch, WriteStrategy::AtOnce, &ConflictPass::default())
            .await
        {
            Err(StatementError::Row(_)) => {
                session.run("rollback").await?;
                rejected.extend(self.write_carefully(session, batch).await?);
            }
            done => {
                rejected.extend(done?);
                session.run("commit").await?;
            }
        }
        rejected.sort_by_key(|r| r.change);
        Ok(rejected)
    }

    /// Copies rows directly into the table, at the cost of a plain COPY. Fails if a row exists
    /// already.
    async fn copy_directly(
        &mut self,
        session: &Session,
        batch: &Batch<'_>,
    ) -> Result<(), StatementError> {
        let statement = self.direct(session).await?;
        self.begin(session).await?;
        let tuples = Tuples::new(self.table.columns.len());
        let pieces = pieces(tuples, &batch.rows, |tuples, (_, fields)| tuples.push(fields));
        session.copy_in(&statement, stream::iter(pieces)).await?;
        session.run("commit").await
    }

    /// Copies rows directly as they arrive, and commits after the local commit. Returns whether it
    /// committed.
    async fn copy_stream(
        &mut self,
        session: &Session,
        rows: &mut RowStream,
    ) -> Result<bool, StatementError> {
        let statement = self.direct(session).await?;
        self.begin(session).await?;
        let mut stream = CopyStream::new(rows, self.table.columns.len());
        session.copy_in(&statement, stream.pieces()).await?;
        let seen = stream.is_well_formed() && rows.wait_committed().await;
        session.run(if seen { "commit" } else { "rollback" }).await?;
        Ok(seen)
    }

    async fn direct(&mut self, session: &Session) -> Result<Statement, StatementError> {
        let statement = match self.direct.take() {
            Some(statement) => statement,
            None => session.prepare(&statements::copy_directly(&self.table)).await?,
        };
        Ok(self.direct.insert(statement).clone())
    }

    async fn begin(&self, session: &Session) -> Result<(), StatementError> {
        let found = session.value(&statements::begin(&self.table)).await?;
        if found.as_deref() == Some(&self.table.signature) {
            return Ok(());
        }
        let message = format!("table {} on the server was altered or recreated", self.table.name);
        Err(StatementError::Fatal(
            DeliveryError::target("55000", message)
                .detail("The next attempt checks the table again."),
        ))
    }

    async fn make_staging(
        &mut self,
        session: &Session,
        staged: Staged,
    ) -> Result<(), StatementError> {
        if self.staging.iter().all(|(made, _)| *made != staged) {
            session.run(&statements::make(staged, &self.table)).await?;
            let statement = session.prepare(&statements::copy(staged)).await?;
            self.staging.push((staged, statement));
        }
        Ok(())
    }

    /// Writes a batch that failed as a whole. Rows that conflict under a unique or exclusion
    /// constraint other than the key may be valid together, but Postgres checks them one by one. So
    /// existing rows that change such a value are deleted first. A row that is still rejected keeps
    /// its old row, which can conflict with others. So the batch is written again without that row,
    /// until no further row is rejected.
    async fn write_carefully(
        &mut self,
        session: &Session,
        batch: &Batch<'_>,
    ) -> Result<Vec<RejectedChange>, StatementError> {
        let mut rejected = self
            .write_staged(session, batch, WriteStrategy::Bisect, &ConflictPass::default())
            .await?;
        let key: Vec<&str> = self.table.key.iter().map(|k| k.name.as_str()).collect();
        if rejected.iter().any(is_conflict) {
            let columns = session.query(statements::CONSTRAINED, &[&self.table.oid, &key]).await?;
            let columns = columns.iter().map(|row| Ok(quoted(&row.try_get::<_, String>(0)?)));
            let mut columns = columns.collect::<Result<Vec<String>, StatementError>>()?;
            columns.retain(|column| self.table.columns.contains(column));
            // Rejected changes for which deleting other rows does not help.
            let mut left: Vec<RejectedChange> =
                rejected.iter().filter(|r| !is_conflict(r)).cloned().collect();
            for _ in 0..ROUNDS {
                if columns.is_empty() {
                    break;
                }
                session.run("rollback").await?;
                let left_out = left.iter().map(|r| r.change).collect();
                let pass = ConflictPass { displaced: columns.clone(), left_out };
                let more = self.write_staged(session, batch, WriteStrategy::Bisect, &pass).await?;
                let known = |r: &RejectedChange| left.iter().any(|l| l.change == r.change);
                let more: Vec<RejectedChange> = more.into_iter().filter(|r| !known(r)).collect();
                let settled = more.is_empty();
                left.extend(more);
                if settled {
                    session.run("commit").await?;
                    self.likely_new = false;
                    return Ok(left);
                }
            }
            session.run("rollback").await?;
            rejected = self
                .write_staged(session, batch, WriteStrategy::Bisect, &ConflictPass::default())
                .await?;
        }
        session.run("commit").await?;
        Ok(rejected)
    }

    /// Writes the rows that differ from the existing ones, and leaves the transaction open.
    async fn write_staged(
        &mut self,
        session: &Session,
        batch: &Batch<'_>,
        strategy: WriteStrategy,
        pass: &ConflictPass,
    ) -> Result<Vec<RejectedChange>, StatementError> {
        self.begin(session).await?;
        let mut rejected = Vec::new();
        for (staged, changes) in batch.staged() {
            let statement = self.staging.iter().find(|(made, _)| *made == staged);
            let Some((_, statement)) = statement else { continue };
            rejected.extend(self.stage(session, staged, statement, changes, strategy).await?);
        }
        let staged: Vec<Staged> = batch.staged().map(|(staged, _)| staged).collect();
        if !pass.displaced.is_empty() && staged.contains(&Staged::Rows) {
            let displace = statements::displace(&self.table, &pass.displaced, &pass.left_out);
            // If other rows on the server refer to them, they stay.
            let _ = attempt(session, strategy, session.run(&displace)).await?;
        }
        let mut new = 0;
        let mut bisection = Bisection::new(0..batch.len);
        while let Some(range) = bisection.next() {
            let write = statements::write(&self.table, &staged, &range, &pass.left_out);
            match attempt(session, strategy, session.value(&write)).await? {
                Ok(count) => new += count.and_then(|n| n.parse::<usize>().ok()).unwrap_or(0),
                Err(row) => rejected.extend(bisection.failed(range).map(|change| row.of(change))),
            }
        }
        // The next rows are probably new as well: the flow fills the table, or appends to it.
        self.likely_new = self.table.takes_copy && new > 0 && new == batch.rows.len();
        Ok(rejected)
    }

    /// Copies changes into their temporary table. A change is rejected if no such row can exist
    /// there, for example if an enum does not have its label.
    async fn stage(
        &self,
        session: &Session,
        staged: Staged,
        statement: &Statement,
        changes: &[(usize, &[u8])],
        strategy: WriteStrategy,
    ) -> Result<Vec<RejectedChange>, StatementError> {
        let fields = staged.columns(&self.table).len();
        let mut rejected = Vec::new();
        let mut bisection = Bisection::new(0..changes.len());
        while let Some(range) = bisection.next() {
            let part = changes.get(range.clone()).unwrap_or_default();
            let pieces = pieces(Tuples::new(fields), part, |tuples, (place, fields)| {
                tuples.push_numbered(*place, fields)
            });
            if let Err(row) =
                attempt(session, strategy, session.copy_in(statement, stream::iter(pieces))).await?
            {
                let at = bisection.failed(range).and_then(|at| changes.get(at));
                rejected.extend(at.map(|(change, _)| row.of(*change)));
            }
        }
        if strategy == WriteStrategy::Bisect {
            session.run(&statements::index(staged)).await?;
        }
        Ok(rejected)
    }
}

/// Runs a part of a transaction, and returns its result or the error of a row.
async fn attempt<T>(
    session: &Session,
    strategy: WriteStrategy,
    work: impl Future<Output = Result<T, StatementError>>,
) -> Result<Result<T, RowError>, StatementError> {
    if strategy == WriteStrategy::AtOnce {
        return work.await.map(Ok);
    }
    session.run("savepoint coco").await?;
    match work.await {
        Ok(done) => {
            session.run("release savepoint coco").await?;
            Ok(Ok(done))
        }
        Err(StatementError::Row(row)) => {
            session.run("rollback to savepoint coco; release savepoint coco").await?;
            Ok(Err(row))
        }
        Err(fault) => Err(fault),
    }
}

/// Returns the data of a COPY, in pieces created as they are sent.
fn pieces<'a, T>(
    tuples: Tuples,
    rows: &'a [T],
    push: impl Fn(&mut Tuples, &'a T) -> Option<Bytes>,
) -> impl Iterator<Item = Bytes> {
    let mut rows = rows.iter();
    let mut tuples = Some(tuples);
    std::iter::from_fn(move || {
        let into = tuples.as_mut()?;
        rows.find_map(|row| push(into, row)).or_else(|| tuples.take().map(Tuples::finish))
    })
}

//! A target: transactions that write changes, and the connection.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{sleep, timeout};

use super::bolt::{BoltError, Connection, Value};
use super::config::Settings;
use super::error::{Failure, classify, is_constrained, is_no_database, no_answer};
use super::mapping::Mapping;
use super::{cypher, encode, verify};
use crate::targets::options::Access;
use crate::targets::{Prepared, Target, changed_meanwhile};
use coco_core::change::{Change, DeliveryError, RejectedChange, TargetSchema};
use coco_core::key_range::{ChangeDigests, HeldRow, KeyRange, PartDigests, PartSums, RangeSet};

/// Attempts at a transaction that Neo4j reports as worth a retry, and the first and longest pause
/// between them. Each pause is twice the one before.
const TRIES: u32 = 10;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A Neo4j server.
struct Neo4j {
    settings: Settings,
    /// `None` while in use: a call that is canceled drops the connection, and the server rolls back
    /// the open transaction.
    connection: Option<Connection>,
}

/// Creates a target without connecting.
pub fn open(access: Access) -> Result<Box<dyn Target>, DeliveryError> {
    Ok(Box::new(Neo4j { settings: Settings::new(&access)?, connection: None }))
}

/// A statement with its parameter, if it has one.
struct Query<'a> {
    text: String,
    parameter: Option<(&'static str, &'a Value)>,
}

fn query(text: impl Into<String>) -> Query<'static> {
    Query { text: text.into(), parameter: None }
}

#[async_trait]
impl Target for Neo4j {
    /// The target exists if any of its nodes or relationships exists.
    async fn exists(&mut self, schema: &TargetSchema) -> Result<bool, DeliveryError> {
        self.count(&cypher::any(&mapping(schema)?)).await
    }

    async fn prepare(&mut self, schema: &TargetSchema) -> Result<Prepared, DeliveryError> {
        let mapping = mapping(schema)?;
        let found = self.count(&cypher::any(&mapping)).await?;
        for constraint in cypher::constraints(&mapping) {
            match self.persist(&[query(constraint.create.as_str())]).await {
                // A constraint of another kind, a NODE KEY, makes the key unique as well.
                Err(error) if is_constrained(&error) => {}
                ended => drop(ended?),
            }
        }
        Ok(if found { Prepared::Found } else { Prepared::Made })
    }

    async fn apply(
        &mut self,
        schema: &TargetSchema,
        changes: &[Change],
    ) -> Result<Vec<RejectedChange>, DeliveryError> {
        let mapping = mapping(schema)?;
        let mut rejected = Vec::new();
        let mut steps = Vec::new();
        for (change, what) in changes.iter().enumerate() {
            match EncodedChange::new(schema, &mapping, change, what) {
                Ok(step) => steps.extend(step),
                Err(encode_error) => rejected.push(RejectedChange {
                    change,
                    sqlstate: encode_error.sqlstate.to_owned(),
                    message: encode_error.message,
                }),
            }
        }
        // Bisects a part that fails because of a row, until the row is alone.
        let mut parts: Vec<&[EncodedChange]> = if steps.is_empty() { vec![] } else { vec![&steps] };
        while let Some(part) = parts.pop() {
            let (keys, rows) = (values_of(part, true), values_of(part, false));
            match (self.transact(&statements(&mapping, &keys, &rows)).await, part) {
                (Ok(_), _) => {}
                (Err(Failure::Row { sqlstate, message }), [step]) => {
                    let sqlstate = sqlstate.to_owned();
                    rejected.push(RejectedChange { change: step.change, sqlstate, message });
                }
                (Err(Failure::Row { .. }), _) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                (Err(Failure::Transient(error) | Failure::Fatal(error)), _) => {
                    return Err(error);
                }
            }
        }
        rejected.sort_by_key(|r| r.change);
        Ok(rejected)
    }

    async fn part_digests(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        digits: u32,
    ) -> Result<PartDigests, DeliveryError> {
        let statement = verify::read_all(schema, &mapping(schema)?);
        let mut sums = PartSums::new(ranges, digits);
        let look = &mut |record: &[Value]| {
            if let Some(ChangeDigests { key, row: Some(row) }) = verify::held_digests(record) {
                sums.add(key, row);
            }
        };
        self.read_all(&statement, look).await?;
        Ok(sums.finish())
    }

    async fn held_rows(
        &mut self,
        schema: &TargetSchema,
        ranges: &[KeyRange],
        most: usize,
    ) -> Result<Vec<HeldRow>, DeliveryError> {
        let statement = verify::read_all(schema, &mapping(schema)?);
        let (set, mut rows) = (RangeSet::new(ranges), Vec::new());
        let look = &mut |record: &[Value]| {
            if let Some(digests) = verify::held_digests(record)
                && set.contains(digests.key)
                && rows.len() <= most
            {
                rows.extend(verify::held_row(schema, record, digests));
            }
        };
        self.read_all(&statement, look).await?;
        if rows.len() > most { Err(changed_meanwhile()) } else { Ok(rows) }
    }

    async fn remove(&mut self, schema: &TargetSchema) -> Result<(), DeliveryError> {
        let mapping = mapping(schema)?;
        match self.remove_all(&mapping).await {
            Err(error) if is_no_database(&error) => Ok(()),
            ended => ended,
        }
    }
}

impl Neo4j {
    async fn remove_all(&mut self, mapping: &Mapping) -> Result<(), DeliveryError> {
        while self.count(&cypher::clear(mapping)).await? {}
        for constraint in cypher::constraints(mapping) {
            // Other targets may have nodes with this label.
            let used = match &constraint.label {
                Some(label) => self.count(&cypher::any_labeled(label)).await?,
                None => false,
            };
            if !used {
                self.persist(&[query(cypher::drop(&constraint))]).await?;
            }
        }
        Ok(())
    }

    /// Reports whether the number that a statement returns is above 0.
    async fn count(&mut self, statement: &str) -> Result<bool, DeliveryError> {
        Ok(self.persist(&[query(statement)]).await?.is_some_and(|n| n > 0))
    }

    /// Reads all rows of the target once, in a transaction, and passes each to `look`.
    async fn read_all(
        &mut self,
        statement: &str,
        look: &mut (dyn FnMut(&[Value]) + Send),
    ) -> Result<(), DeliveryError> {
        let mut connection = self.begin().await.map_err(without_row)?;
        match self.read_in_transaction(&mut connection, statement, look).await {
            Ok(()) => {
                self.connection = Some(connection);
                Ok(())
            }
            Err(fault) => {
                self.keep(connection, &fault).await;
                Err(without_row(fault.failure()))
            }
        }
    }

    async fn read_in_transaction(
        &self,
        connection: &mut Connection,
        statement: &str,
        look: &mut (dyn FnMut(&[Value]) + Send),
    ) -> Result<(), RequestError> {
        self.in_time(connection.start(statement)).await?;
        while self.in_time(connection.pull(look)).await? {}
        self.in_time(connection.commit()).await
    }

    /// Like [`Neo4j::transact`], for statements that concern no row.
    async fn persist(&mut self, statements: &[Query<'_>]) -> Result<Option<i64>, DeliveryError> {
        self.transact(statements).await.map_err(without_row)
    }

    /// Runs statements in one transaction, and retries it if Neo4j reports that this may help.
    /// Returns the number that the last statement returned, if any.
    async fn transact(&mut self, statements: &[Query<'_>]) -> Result<Option<i64>, Failure> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.try_once(statements).await {
                Err(Failure::Transient(_)) => {}
                ended => return ended,
            }
            // A random pause: transactions that met in a deadlock would otherwise meet again.
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.try_once(statements).await
    }

    async fn try_once(&mut self, statements: &[Query<'_>]) -> Result<Option<i64>, Failure> {
        let mut connection = self.begin().await?;
        match self.in_transaction(&mut connection, statements).await {
            Ok(number) => {
                self.connection = Some(connection);
                Ok(number)
            }
            Err(fault) => {
                self.keep(connection, &fault).await;
                Err(fault.failure())
            }
        }
    }

    async fn in_transaction(
        &self,
        connection: &mut Connection,
        statements: &[Query<'_>],
    ) -> Result<Option<i64>, RequestError> {
        let mut number = None;
        for Query { text, parameter } in statements {
            number = self.in_time(connection.run(text, parameter.as_slice())).await?;
        }
        self.in_time(connection.commit()).await?;
        Ok(number)
    }

    /// Returns a connection with an open transaction: the existing connection, or a new one.
    async fn begin(&mut self) -> Result<Connection, Failure> {
        let database = self.settings.database.clone();
        if let Some(mut connection) = self.connection.take() {
            let begun = self.in_time(connection.begin(database.as_deref())).await;
            return match begun {
                Ok(()) => Ok(connection),
                Err(fault) => {
                    self.keep(connection, &fault).await;
                    Err(fault.failure())
                }
            };
        }
        let begun = async {
            let mut connection = Connection::open(&self.settings).await?;
            connection.begin(database.as_deref()).await?;
            Ok(connection)
        };
        let after = self.settings.connect_timeout;
        match timeout(after, begun).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(fault)) => Err(match classify(fault) {
                // The connection did not fail: it was never established.
                Failure::Fatal(error) if error.sqlstate == "08006" => {
                    Failure::Fatal(DeliveryError { sqlstate: "08001".to_owned(), ..error })
                }
                failure => failure,
            }),
            Err(_) => Err(Failure::Fatal(no_answer("no connection", after, "connect_timeout"))),
        }
    }

    /// Keeps a connection for the next transaction if the server has only reported a failure.
    async fn keep(&mut self, mut connection: Connection, fault: &RequestError) {
        if let RequestError::BoltError(BoltError::Failure { .. }) = fault
            && self.in_time(connection.reset()).await.is_ok()
        {
            self.connection = Some(connection);
        }
    }

    async fn in_time<T>(
        &self,
        request: impl Future<Output = Result<T, BoltError>>,
    ) -> Result<T, RequestError> {
        let after = self.settings.request_timeout;
        match timeout(after, request).await {
            Ok(answer) => answer.map_err(RequestError::BoltError),
            Err(_) => Err(RequestError::Late(after)),
        }
    }
}

/// The error of a request.
enum RequestError {
    BoltError(BoltError),
    Late(Duration),
}

impl RequestError {
    fn failure(self) -> Failure {
        match self {
            RequestError::BoltError(fault) => classify(fault),
            RequestError::Late(after) => {
                Failure::Fatal(no_answer("no answer", after, "request_timeout"))
            }
        }
    }
}

/// Converts the failure of a statement that concerns no row.
fn without_row(failure: Failure) -> DeliveryError {
    match failure {
        Failure::Row { sqlstate, message } => DeliveryError::target(sqlstate, message),
        Failure::Transient(error) | Failure::Fatal(error) => error,
    }
}

fn mapping(schema: &TargetSchema) -> Result<Mapping, DeliveryError> {
    Mapping::new(schema).map_err(|wrong| DeliveryError::target("HV024", wrong))
}

/// An encoded change.
struct EncodedChange {
    /// Index of the change.
    change: usize,
    /// The row to write, or the key of the row to delete.
    values: Value,
    deletes: bool,
}

impl EncodedChange {
    /// Encodes a change. Returns `None` if there is nothing to do.
    fn new(
        schema: &TargetSchema,
        mapping: &Mapping,
        change: usize,
        what: &Change,
    ) -> Result<Option<EncodedChange>, encode::EncodeError> {
        match &what.row {
            Some(row) => {
                let values = encode::row(schema, mapping, row)?;
                Ok(Some(EncodedChange { change, values, deletes: false }))
            }
            // A key that cannot be encoded does not exist on the server.
            None => Ok(encode::key(schema, mapping, &what.key).ok().map(|values| EncodedChange {
                change,
                values,
                deletes: true,
            })),
        }
    }
}

/// Returns the rows of the changes, or the keys of those that delete.
fn values_of(steps: &[EncodedChange], deletes: bool) -> Value {
    let chosen = steps.iter().filter(|s| s.deletes == deletes).map(|s| s.values.clone());
    Value::List(chosen.collect())
}

/// Returns the statements that apply these changes in one transaction: deletes first.
fn statements<'a>(mapping: &Mapping, keys: &'a Value, rows: &'a Value) -> Vec<Query<'a>> {
    let some = |values: &Value| matches!(values, Value::List(list) if !list.is_empty());
    let mut all = Vec::new();
    if some(keys) {
        all.push(Query { text: cypher::delete(mapping), parameter: Some(("keys", keys)) });
    }
    if some(rows) {
        let write = |text| Query { text, parameter: Some(("rows", rows)) };
        all.extend(cypher::upsert(mapping).into_iter().map(write));
    }
    all
}

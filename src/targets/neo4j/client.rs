//! The target: transactions that bring changes there, and what a connection is.

use std::io::Write;
use std::time::Duration;

use async_trait::async_trait;
use neo4rs::{BoltList, BoltType, ConfigBuilder, Graph, Query, Txn, query};
use tempfile::NamedTempFile;
use tokio::time::{sleep, timeout};

use super::config::Settings;
use super::error::{Failure, is_constrained, is_no_database, judge, no_answer};
use super::mapping::Mapping;
use super::{cypher, encode};
use crate::engine::delivery::{Change, Refused, Shape, Trouble};
use crate::targets::options::Access;
use crate::targets::{Prepared, Target};

/// How often a transaction is tried that Neo4j says is worth trying again, and the first pause
/// between; each is twice the one before.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A connection to a server of Neo4j's.
struct Neo4j {
    graph: Graph,
    connected: bool,
    connect_timeout: Duration,
    request_timeout: Duration,
}

/// Connects to nothing yet.
pub fn open(access: Access) -> Result<Box<dyn Target>, Trouble> {
    let settings = Settings::new(&access)?;
    let mut config = ConfigBuilder::default()
        .uri(&settings.url)
        .user(settings.user.as_str())
        .password(settings.password.as_str())
        .max_connections(1)
        // Ours end first, and cover what this does not: sending, and the handshakes.
        .connection_timeout(settings.connect_timeout.max(settings.request_timeout) * 2);
    if let Some(database) = &settings.database {
        config = config.db(database.as_str());
    }
    // The client takes certificates from a file alone. It reads it here, and the file goes.
    let file = settings.roots.as_deref().map(file_of).transpose()?;
    if let Some(file) = &file {
        config = config.with_client_certificate(file.path());
    }
    if settings.encrypted() {
        // Else rustls looks for one, and panics where a build has two. Set already is just as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let invalid = |e| Trouble::server("HV024", format!("the server's options do not fit: {e}"));
    let graph = Graph::connect(config.build().map_err(invalid)?).map_err(invalid)?;
    Ok(Box::new(Neo4j {
        graph,
        connected: false,
        connect_timeout: settings.connect_timeout,
        request_timeout: settings.request_timeout,
    }))
}

fn file_of(pem: &str) -> Result<NamedTempFile, Trouble> {
    let write = || -> std::io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new()?;
        file.write_all(pem.as_bytes())?;
        Ok(file)
    };
    write().map_err(|e| Trouble::server("58030", format!("no temporary file for sslrootcert: {e}")))
}

#[async_trait]
impl Target for Neo4j {
    /// Nodes or relationships of the target, by which it is told whose they are.
    async fn is_there(&mut self, shape: &Shape) -> Result<bool, Trouble> {
        self.count(&cypher::any(&mapping(shape)?)).await
    }

    async fn prepare(&mut self, shape: &Shape) -> Result<Prepared, Trouble> {
        let mapping = mapping(shape)?;
        let found = self.count(&cypher::any(&mapping)).await?;
        for constraint in cypher::constraints(&mapping) {
            match self.persist(&[query(&constraint.create)]).await {
                // One of another kind that makes the key unique as well: a NODE KEY.
                Err(trouble) if is_constrained(&trouble) => {}
                ended => drop(ended?),
            }
        }
        Ok(if found { Prepared::Found } else { Prepared::Made })
    }

    async fn apply(&mut self, shape: &Shape, changes: &[Change]) -> Result<Vec<Refused>, Trouble> {
        let mapping = mapping(shape)?;
        let mut refused = Vec::new();
        let mut steps = Vec::new();
        for (change, what) in changes.iter().enumerate() {
            match Step::new(shape, &mapping, change, what) {
                Ok(step) => steps.extend(step),
                Err(unfit) => refused.push(Refused {
                    change,
                    sqlstate: unfit.sqlstate.to_owned(),
                    message: unfit.message,
                }),
            }
        }
        // Halves what fails for a row's reason until the row stands alone.
        let mut parts: Vec<&[Step]> = if steps.is_empty() { vec![] } else { vec![&steps] };
        while let Some(part) = parts.pop() {
            match (self.transact(&statements(&mapping, part)).await, part) {
                (Ok(_), _) => {}
                (Err(Failure::Row { sqlstate, message }), [step]) => {
                    let sqlstate = sqlstate.to_owned();
                    refused.push(Refused { change: step.change, sqlstate, message });
                }
                (Err(Failure::Row { .. }), _) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                (Err(Failure::Transient(trouble) | Failure::Trouble(trouble)), _) => {
                    return Err(trouble);
                }
            }
        }
        refused.sort_by_key(|r| r.change);
        Ok(refused)
    }

    async fn remove(&mut self, shape: &Shape) -> Result<(), Trouble> {
        let mapping = mapping(shape)?;
        match self.remove_all(&mapping).await {
            Err(trouble) if is_no_database(&trouble) => Ok(()),
            ended => ended,
        }
    }
}

impl Neo4j {
    async fn remove_all(&mut self, mapping: &Mapping) -> Result<(), Trouble> {
        while self.count(&cypher::clear(mapping)).await? {}
        for constraint in cypher::constraints(mapping) {
            // Other targets may have nodes of this label.
            let used = match &constraint.label {
                Some(label) => self.count(&cypher::any_labelled(label)).await?,
                None => false,
            };
            if !used {
                self.persist(&[query(&cypher::drop(&constraint))]).await?;
            }
        }
        Ok(())
    }

    /// Whether the number that a statement returns is above 0.
    async fn count(&mut self, statement: &str) -> Result<bool, Trouble> {
        Ok(self.persist(&[query(statement)]).await?.is_some_and(|n| n > 0))
    }

    /// As [`Neo4j::transact`], for statements that no row has a part in.
    async fn persist(&mut self, statements: &[Query]) -> Result<Option<i64>, Trouble> {
        self.transact(statements).await.map_err(|failure| match failure {
            Failure::Row { sqlstate, message } => Trouble::target(sqlstate, message),
            Failure::Transient(trouble) | Failure::Trouble(trouble) => trouble,
        })
    }

    /// Runs statements in one transaction, again where Neo4j says that this may help. Returns the
    /// number that the last of them returned, if it did.
    async fn transact(&mut self, statements: &[Query]) -> Result<Option<i64>, Failure> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.try_once(statements).await {
                Err(Failure::Transient(_)) => {}
                ended => return ended,
            }
            sleep(pause).await;
            pause *= 2;
        }
        self.try_once(statements).await
    }

    /// A transaction that is dropped is rolled back when its connection is next used, or closed.
    async fn try_once(&mut self, statements: &[Query]) -> Result<Option<i64>, Failure> {
        let mut txn = self.begin().await?;
        let mut number = None;
        for statement in statements {
            number = self.in_time(run(&mut txn, statement.clone())).await?;
        }
        self.in_time(txn.commit()).await?;
        Ok(number)
    }

    async fn begin(&mut self) -> Result<Txn, Failure> {
        if self.connected {
            return self.in_time(self.graph.start_txn()).await;
        }
        let (after, begun) = (self.connect_timeout, self.graph.start_txn());
        match timeout(after, begun).await {
            Ok(Ok(txn)) => {
                self.connected = true;
                Ok(txn)
            }
            Ok(Err(error)) => Err(match judge(error) {
                // The connection has not failed: there was none.
                Failure::Trouble(trouble) if trouble.sqlstate == "08006" => {
                    Failure::Trouble(Trouble { sqlstate: "08001".to_owned(), ..trouble })
                }
                failure => failure,
            }),
            Err(_) => Err(Failure::Trouble(no_answer("no connection", after, "connect_timeout"))),
        }
    }

    async fn in_time<T>(
        &self,
        request: impl Future<Output = Result<T, neo4rs::Error>>,
    ) -> Result<T, Failure> {
        match timeout(self.request_timeout, request).await {
            Ok(answer) => answer.map_err(judge),
            Err(_) => {
                let after = self.request_timeout;
                Err(Failure::Trouble(no_answer("no answer", after, "request_timeout")))
            }
        }
    }
}

/// What the statement returns as `number`, if it does.
async fn run(txn: &mut Txn, statement: Query) -> Result<Option<i64>, neo4rs::Error> {
    let mut rows = txn.execute(statement).await?;
    let mut number = None;
    while let Some(row) = rows.next(txn.handle()).await? {
        number = row.get("number").ok();
    }
    Ok(number)
}

fn mapping(shape: &Shape) -> Result<Mapping, Trouble> {
    Mapping::new(shape).map_err(|wrong| Trouble::target("HV024", wrong))
}

/// A change as it is sent.
struct Step {
    /// Its place among the changes.
    change: usize,
    /// A row to write, or the key of one to take away.
    values: BoltType,
    deletes: bool,
}

impl Step {
    /// `None`: there is nothing to do.
    fn new(
        shape: &Shape,
        mapping: &Mapping,
        change: usize,
        what: &Change,
    ) -> Result<Option<Step>, encode::Unfit> {
        match &what.row {
            Some(row) => {
                let values = encode::row(shape, mapping, row)?;
                Ok(Some(Step { change, values, deletes: false }))
            }
            // What cannot be written is not there.
            None => Ok(encode::key(shape, mapping, &what.key).ok().map(|values| Step {
                change,
                values,
                deletes: true,
            })),
        }
    }
}

/// What brings these changes there, together in one transaction: deletes first.
fn statements(mapping: &Mapping, steps: &[Step]) -> Vec<Query> {
    let of = |deletes: bool| {
        let chosen = steps.iter().filter(|s| s.deletes == deletes).map(|s| s.values.clone());
        BoltList::from(chosen.collect::<Vec<_>>())
    };
    let (keys, rows) = (of(true), of(false));
    let mut all = Vec::new();
    if !keys.is_empty() {
        all.push(query(&cypher::delete(mapping)).param("keys", BoltType::List(keys)));
    }
    if !rows.is_empty() {
        let write =
            |statement: &String| query(statement).param("rows", BoltType::List(rows.clone()));
        all.extend(cypher::upsert(mapping).iter().map(write));
    }
    all
}

//! Opens and configures connections. Every wait has a limit.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, Stream, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode as Tls;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, SimpleQueryMessage, Statement};

use super::config::{Config, SslMode};
use super::error::{self, StatementError};
use super::tls;
use super::wire::{AnySocket, Bounded, BoundedTls, Meter};
use coco_core::change::DeliveryError;

/// How much longer than the server's own limit coco waits for an answer, before it gives the server
/// up.
const GRACE: Duration = Duration::from_secs(5);
/// Idle time after which TCP checks whether the server is still reachable.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A session on the server.
pub struct Session {
    client: Client,
    /// The schemas in which the role finds unqualified tables, according to its settings on the
    /// server. It creates tables in the first one.
    pub search_path: Vec<String>,
    patience: Duration,
    statement_timeout: Duration,
    connection: Connection,
}

/// The task that transfers a session's messages. It ends with the session, even if the server has
/// stopped answering.
struct Connection {
    running: JoinHandle<()>,
    /// Counts what the server sends.
    meter: Arc<Meter>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Session {
    /// Connects within the server's `connect_timeout`.
    pub async fn open(config: &Config) -> Result<Session, DeliveryError> {
        let limit = config.connect_timeout;
        let (client, connection) =
            timeout(limit, connect(config)).await.unwrap_or_else(|_| {
                let seconds = limit.as_secs();
                Err(DeliveryError::server("08001", format!("could not connect to server within \
                                                            {seconds} s")).hint(
                "Check the server's options host and port, or raise its option connect_timeout.",
            ))
            })?;
        let mut session = Session {
            client,
            search_path: Vec::new(),
            patience: config.statement_timeout + GRACE,
            statement_timeout: config.statement_timeout,
            connection,
        };
        session.set_up().await.map_err(StatementError::into_delivery_error)?;
        Ok(session)
    }

    async fn set_up(&mut self) -> Result<(), StatementError> {
        let rows = self.query("select pg_catalog.current_schemas(false)", &[]).await?;
        if let Some(row) = rows.first() {
            self.search_path = row.try_get(0)?;
        }
        // synchronous_commit is left to the server. A session that hangs in a transaction would
        // keep its locks, and block writers on the server and the next session.
        let limit = self.statement_timeout.as_millis();
        self.run(&format!(
            "set search_path = pg_catalog, pg_temp;
             set standard_conforming_strings = on;
             set client_min_messages = error;
             set default_transaction_read_only = off;
             set statement_timeout = {limit};
             set idle_in_transaction_session_timeout = {limit}"
        ))
        .await
    }

    /// Runs statements, and ignores their results.
    pub async fn run(&self, sql: &str) -> Result<(), StatementError> {
        self.within(self.client.batch_execute(sql)).await
    }

    /// Returns the first value of the last row that the statements return.
    pub async fn value(&self, sql: &str) -> Result<Option<String>, StatementError> {
        let messages = self.within(self.client.simple_query(sql)).await?;
        let value = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        };
        Ok(messages.iter().rev().find_map(value).flatten())
    }

    pub async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StatementError> {
        self.within(self.client.query(sql, parameters)).await
    }

    pub async fn prepare(&self, sql: &str) -> Result<Statement, StatementError> {
        self.within(self.client.prepare(sql)).await
    }

    /// Streams data to a `COPY … FROM STDIN`, as the pieces arrive. If the server rejects the
    /// statement before it starts, the session must not be used again: the client then expects one
    /// answer too many.
    pub async fn copy_in(
        &self,
        statement: &Statement,
        pieces: impl Stream<Item = Bytes>,
    ) -> Result<(), StatementError> {
        let mut pieces = pin!(pieces);
        let mut sink = pin!(self.within(self.client.copy_in::<_, Bytes>(statement)).await?);
        while let Some(piece) = pieces.next().await {
            self.within(sink.feed(piece)).await?;
        }
        // The server reports an invalid row here: it reads and drops the remaining data.
        self.within(sink.finish()).await.map(|_| ())
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, StatementError> {
        let meter = &self.connection.meter;
        meter.begin();
        match timeout(self.patience, work).await {
            Ok(done) => done.map_err(|error| match meter.excess() {
                Some(excess) => StatementError::Fatal(error::excess(excess)),
                None => StatementError::from(error),
            }),
            Err(_) => {
                let seconds = self.patience.as_secs();
                let message = format!("the server did not respond for {seconds} s");
                Err(StatementError::Fatal(DeliveryError::server("08006", message).hint(
                    "Check the network and the server, or raise the server's option \
                     statement_timeout.",
                )))
            }
        }
    }
}

async fn connect(config: &Config) -> Result<(Client, Connection), DeliveryError> {
    let addresses = resolve(config).await?;
    let each = config.connect_timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let mut failed = None;
    for address in addresses {
        match connect_to(config, address, each).await {
            // coco tries the next address only if nothing answers at this one.
            Err(delivery_error) if delivery_error.sqlstate == "08001" => {
                failed = Some(delivery_error)
            }
            done => return done,
        }
    }
    Err(failed.unwrap_or_else(|| {
        DeliveryError::server("08001", format!("host \"{}\" has no address", config.host))
    }))
}

/// Returns the addresses of the host. `None` stands for a Unix socket.
async fn resolve(config: &Config) -> Result<Vec<Option<IpAddr>>, DeliveryError> {
    if config.is_local() {
        return Ok(vec![None]);
    }
    let found = tokio::net::lookup_host((config.host.as_str(), config.port)).await;
    let found = found.map_err(|e| {
        DeliveryError::server("08001", format!("could not resolve host \"{}\": {e}", config.host))
            .hint("Check the server's option host.")
    })?;
    Ok(found.map(|address| Some(address.ip())).collect())
}

async fn connect_to(
    config: &Config,
    address: Option<IpAddr>,
    limit: Duration,
) -> Result<(Client, Connection), DeliveryError> {
    let mut parameters = tokio_postgres::Config::new();
    parameters.dbname(&config.dbname).user(&config.user).application_name("coco").ssl_mode(
        match config.sslmode {
            // As in libpq, a Unix socket never uses TLS, whatever the mode.
            _ if config.is_local() => Tls::Disable,
            SslMode::Disable => Tls::Disable,
            SslMode::Prefer => Tls::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Tls::Require,
        },
    );
    let place = (config, address, limit);
    if config.must_authenticate {
        // The server may accept anyone who connects from here (`trust`, `peer` or `ident` in its
        // pg_hba.conf). That authenticates the operating system user of this database, not the
        // owner of the flow. Only a password that the server asks for shows that the owner may act
        // as the role in the user mapping. So coco first connects without the password, and the
        // server must refuse. (A client has no other way to learn whether its password was
        // checked.) Both attempts use the same address, because the host name could lead to another
        // server the second time.
        match log_in(place, &parameters).await? {
            Err(error) if asks_for_password(&error) => {}
            Err(error) => return Err(error::connect_error(&error)),
            Ok(_) => {
                return Err(DeliveryError::server("2F003", "password is required")
                    .detail(
                        "The flow's owner is not a superuser, and the server accepted the \
                         connection without a password.",
                    )
                    .hint(
                        "Configure pg_hba.conf on the server to require a password (scram-sha-256) \
                         from this role, or ask a superuser to set password_required to false in \
                         the user mapping.",
                    ));
            }
        }
    }
    if let Some(password) = &config.password {
        parameters.password(password);
    }
    log_in(place, &parameters).await?.map_err(|error| match asks_for_password(&error) {
        true => DeliveryError::server(
            "28000",
            "the server requires a password, but the user mapping has none",
        )
        .hint("ALTER USER MAPPING … OPTIONS (ADD password '…')."),
        false => error::connect_error(&error),
    })
}

/// Connects and logs in. The inner error is the client's.
async fn log_in(
    (config, address, limit): (&Config, Option<IpAddr>, Duration),
    parameters: &tokio_postgres::Config,
) -> Result<Result<(Client, Connection), Error>, DeliveryError> {
    let socket = timeout(limit, socket(config, address))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "connection timed out")));
    let socket = socket.map_err(|error| error::unreachable(&error))?;
    let meter = Arc::new(Meter::default());
    let bounded = Bounded::new(socket, meter.clone(), parameters.get_ssl_mode() != Tls::Disable);
    let tls = BoundedTls { maker: tls::connector(config)?, host: config.host.clone() };
    match parameters.connect_raw(bounded, tls).await {
        Ok((client, connection)) => {
            // The error that ends the connection is returned by the next request.
            let running = tokio::spawn(async move {
                connection.await.ok();
            });
            Ok(Ok((client, Connection { running, meter })))
        }
        Err(error) => match meter.excess() {
            Some(excess) => Err(error::excess(excess)),
            None => Ok(Err(error)),
        },
    }
}

async fn socket(config: &Config, address: Option<IpAddr>) -> io::Result<AnySocket> {
    let Some(address) = address else {
        let path = Path::new(&config.host).join(format!(".s.PGSQL.{}", config.port));
        return Ok(AnySocket::Unix(UnixStream::connect(path).await?));
    };
    let stream = TcpStream::connect((address, config.port)).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    Ok(AnySocket::Tcp(stream))
}

/// Reports whether the server asked for a password that was not given. The client's error has no
/// other mark; a test checks this text.
fn asks_for_password(error: &Error) -> bool {
    error.as_db_error().is_none()
        && error.source().is_some_and(|cause| cause.to_string() == "password missing")
}

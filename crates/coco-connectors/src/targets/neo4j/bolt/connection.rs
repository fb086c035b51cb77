//! Opens connections, and exchanges messages.

use std::io;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::read::{self, Message};
use super::value::{Value, write_string, write_structure};
use crate::targets::neo4j::config::Settings;
use crate::targets::neo4j::tls;

/// The first bytes of a client, and the versions that it speaks, best first: 4.4 to 4.0.
const PREAMBLE: [u8; 20] = [0x60, 0x60, 0xB0, 0x17, 0, 0, 4, 4, 0, 0, 3, 4, 0, 0, 1, 4, 0, 0, 0, 4];

const HELLO: u8 = 0x01;
const RESET: u8 = 0x0F;
const RUN: u8 = 0x10;
const BEGIN: u8 = 0x11;
const COMMIT: u8 = 0x12;
const PULL: u8 = 0x3F;
const SUCCESS: u8 = 0x70;
const RECORD: u8 = 0x71;
const IGNORED: u8 = 0x7E;
const FAILURE: u8 = 0x7F;

/// Maximum bytes of a message from the server. An error may repeat a value of a row.
const LONGEST_MESSAGE: usize = 8 << 20;
/// Maximum number of rows that a server returns at once. The statements that write return at most
/// one.
const MOST_RECORDS: usize = 1000;
const LONGEST_CHUNK: usize = u16::MAX as usize;

/// The error of a request.
#[derive(Debug)]
pub enum BoltError {
    /// The server reported a failure. The connection can be used again.
    Failure { code: String, message: String },
    /// The connection has failed.
    Lost(io::Error),
    /// The server speaks no supported version of Bolt.
    Version([u8; 4]),
    /// The server violated the protocol. The text continues "the server".
    Protocol(String),
}

impl From<io::Error> for BoltError {
    fn from(error: io::Error) -> BoltError {
        BoltError::Lost(error)
    }
}

/// A socket, with or without TLS.
trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for S {}

/// A logged-in connection. After a call on it was canceled, it must not be used again.
pub struct Connection {
    stream: BufStream<Box<dyn Socket>>,
}

impl Connection {
    /// Connects and logs in.
    pub async fn open(settings: &Settings) -> Result<Connection, BoltError> {
        let (host, port) = settings.host_and_port();
        let socket = TcpStream::connect((host.as_str(), port)).await?;
        socket.set_nodelay(true)?;
        let socket: Box<dyn Socket> = match settings.encrypted() {
            true => {
                let config = tls::client(settings.roots.as_deref()).map_err(io::Error::other)?;
                let name = ServerName::try_from(host).map_err(io::Error::other)?;
                Box::new(TlsConnector::from(config).connect(name, socket).await?)
            }
            false => Box::new(socket),
        };
        let mut connection = Connection { stream: BufStream::new(socket) };
        connection.stream.write_all(&PREAMBLE).await?;
        connection.stream.flush().await?;
        let mut version = [0; 4];
        connection.stream.read_exact(&mut version).await?;
        if !matches!(version, [0, 0, 0 | 1 | 3 | 4, 4]) {
            return Err(BoltError::Version(version));
        }
        connection.hello(settings).await?;
        Ok(connection)
    }

    async fn hello(&mut self, settings: &Settings) -> Result<(), BoltError> {
        let text = |name: &str, value: &str| (name.to_owned(), Value::from(value));
        let mut extra = vec![
            text("user_agent", concat!("coco/", env!("CARGO_PKG_VERSION"))),
            text("scheme", "basic"),
            text("principal", &settings.user),
            text("credentials", &settings.password),
        ];
        if let Some(address) = settings.routed_address() {
            extra.push(("routing".to_owned(), Value::Map(vec![text("address", address)])));
        }
        self.ask(HELLO, &[Value::Map(extra)]).await.map(drop)
    }

    /// Begins a transaction.
    pub async fn begin(&mut self, database: Option<&str>) -> Result<(), BoltError> {
        let database = database.map(|name| ("db".to_owned(), Value::from(name)));
        self.ask(BEGIN, &[Value::Map(database.into_iter().collect())]).await.map(drop)
    }

    pub async fn commit(&mut self) -> Result<(), BoltError> {
        self.ask(COMMIT, &[]).await.map(drop)
    }

    /// Makes a connection usable again after the server has reported a failure.
    pub async fn reset(&mut self) -> Result<(), BoltError> {
        self.ask(RESET, &[]).await.map(drop)
    }

    /// Runs a statement in the transaction. Returns the last value of its column `number`, if any.
    pub async fn run(
        &mut self,
        statement: &str,
        parameters: &[(&str, &Value)],
    ) -> Result<Option<i64>, BoltError> {
        self.send_run(statement, parameters).await?;
        self.send_pull(-1).await?;
        self.stream.flush().await?;

        let fields = match self.answer().await {
            Ok(fields) => fields,
            Err(fault) => {
                if let BoltError::Failure { .. } = fault {
                    // Reads the response to the second request.
                    self.receive().await?;
                }
                return Err(fault);
            }
        };
        let place = match fields.get("fields") {
            Some(Value::List(names)) => names.iter().position(|n| n.text() == Some("number")),
            _ => None,
        };
        self.records(place).await
    }

    /// Starts a statement in the transaction. [`Connection::pull`] reads its rows.
    pub async fn start(&mut self, statement: &str) -> Result<(), BoltError> {
        self.send_run(statement, &[]).await?;
        self.stream.flush().await?;
        self.answer().await.map(drop)
    }

    /// Reads the next rows of a started statement, at most 1,000, and passes each to `look`. Returns
    /// whether more rows follow.
    pub async fn pull(
        &mut self,
        look: &mut (dyn FnMut(&[Value]) + Send),
    ) -> Result<bool, BoltError> {
        self.send_pull(MOST_RECORDS as i64).await?;
        self.stream.flush().await?;
        for _ in 0..=MOST_RECORDS {
            let message = self.receive().await?;
            if message.tag != RECORD {
                let said = success(message)?;
                return Ok(said.get("has_more") == Some(&Value::Boolean(true)));
            }
            if let Some(Value::List(row)) = message.fields.first() {
                look(row);
            }
        }
        Err(BoltError::Protocol(format!("returns more than {MOST_RECORDS} rows")))
    }

    async fn send_run(
        &mut self,
        statement: &str,
        parameters: &[(&str, &Value)],
    ) -> Result<(), BoltError> {
        let mut run = Vec::new();
        write_structure(RUN, 3, &mut run);
        write_string(statement, &mut run);
        // There are few parameters, so their count fits into the marker.
        run.push(0xA0 | (parameters.len() & 0x0F) as u8);
        for (name, value) in parameters {
            write_string(name, &mut run);
            value.write(&mut run);
        }
        run.push(0xA0);
        self.send(&run).await
    }

    /// Asks for this many rows; -1 for all.
    async fn send_pull(&mut self, rows: i64) -> Result<(), BoltError> {
        let mut pull = Vec::new();
        let rows = Value::Map(vec![("n".to_owned(), rows.into())]);
        Value::Structure(PULL, vec![rows]).write(&mut pull);
        self.send(&pull).await
    }

    /// Reads the rows of a statement to their end.
    async fn records(&mut self, place: Option<usize>) -> Result<Option<i64>, BoltError> {
        let mut number = None;
        for _ in 0..=MOST_RECORDS {
            let message = self.receive().await?;
            if message.tag != RECORD {
                return success(message).map(|_| number);
            }
            if let (Some(Value::List(row)), Some(place)) = (message.fields.first(), place)
                && let Some(Value::Integer(value)) = row.get(place)
            {
                number = Some(*value);
            }
        }
        Err(BoltError::Protocol(format!("returns more than {MOST_RECORDS} rows")))
    }

    /// Sends a request, and waits for its response.
    async fn ask(&mut self, tag: u8, fields: &[Value]) -> Result<Value, BoltError> {
        let mut message = Vec::new();
        write_structure(tag, fields.len(), &mut message);
        fields.iter().for_each(|field| field.write(&mut message));
        self.send(&message).await?;
        self.stream.flush().await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Value, BoltError> {
        success(self.receive().await?)
    }

    async fn send(&mut self, message: &[u8]) -> Result<(), BoltError> {
        for chunk in message.chunks(LONGEST_CHUNK) {
            let size = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
            self.stream.write_u16(size).await?;
            self.stream.write_all(chunk).await?;
        }
        self.stream.write_u16(0).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<Message, BoltError> {
        let mut bytes = Vec::new();
        loop {
            match usize::from(self.stream.read_u16().await?) {
                // An empty message only shows that the server is still there.
                0 if bytes.is_empty() => {}
                0 => break,
                size if bytes.len() + size > LONGEST_MESSAGE => {
                    let message = format!("sends a message of more than {LONGEST_MESSAGE} bytes");
                    return Err(BoltError::Protocol(message));
                }
                size => {
                    let start = bytes.len();
                    bytes.resize(start + size, 0);
                    self.stream.read_exact(&mut bytes[start..]).await?;
                }
            }
        }
        read::message(&bytes)
            .map_err(|why| BoltError::Protocol(format!("sends a message that {why}")))
    }
}

/// Returns the content of a success message, or the error of any other.
fn success(message: Message) -> Result<Value, BoltError> {
    let said = message.fields.into_iter().next().unwrap_or(Value::Null);
    let text = |name: &str| said.get(name).and_then(Value::text).unwrap_or_default().to_owned();
    match message.tag {
        SUCCESS => Ok(said),
        FAILURE => Err(BoltError::Failure { code: text("code"), message: text("message") }),
        IGNORED => Err(BoltError::Protocol("ignores a request".to_owned())),
        tag => Err(BoltError::Protocol(format!("answers with a message of tag {tag}"))),
    }
}

//! The other side of a webhook: a small HTTP/1.1 server that keeps rows by key, remembers its
//! requests, and can misbehave in the ways that servers do.
//!
//! It is strict: a request that is not as the documentation says is answered with 500 and a message,
//! which coco shows.
#![allow(dead_code)] // each file of tests uses a part

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, Mac};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use sha2::Sha256;

/// A server on a free port of this machine; it stops when dropped.
pub struct Receiver {
    port: u16,
    tls: Option<Tls>,
    shared: Arc<Shared>,
    /// None while it is stopped.
    acceptor: Option<JoinHandle<()>>,
}

struct Tls {
    config: Arc<ServerConfig>,
    certificate: String,
}

/// A request that has come in, whatever became of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which connection it came over, from 1.
    pub connection: usize,
    pub method: String,
    /// With the query.
    pub path: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is kept, and this is the answer.
    Answer { status: u16, headers: Vec<(String, String)>, body: String },
    /// As `Answer`, before the body of the request is read; then the connection ends.
    AnswerUnread { status: u16 },
    /// The connection ends in the middle of the request's body; nothing is kept.
    CutRequest,
    /// The first half of the changes is kept, and the connection ends without an answer.
    KeepHalf,
    /// All is kept, and the connection ends in the middle of the answer's body.
    CutAnswer,
    /// All is kept, and the answer comes so much later.
    Late(Duration),
    /// All is kept, and the answer does not come before [`Receiver::release`] is called.
    Hold,
}

impl Fault {
    pub fn status(status: u16) -> Fault {
        Fault::Answer { status, headers: Vec::new(), body: String::new() }
    }

    pub fn answer(status: u16, header: (&str, &str), body: &str) -> Fault {
        let headers = vec![(header.0.to_owned(), header.1.to_owned())];
        Fault::Answer { status, headers, body: body.to_owned() }
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopped: bool,
    releases: usize,
    connections: usize,
    /// To end them when it stops.
    open: Vec<TcpStream>,
    requests: Vec<Request>,
    /// By flow, target and key: the version, and the row or that it is gone.
    rows: BTreeMap<(String, String, String), (i64, Option<String>)>,
    bodies: BTreeMap<String, String>,
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    refused: Option<(u16, String)>,
    largest: Option<usize>,
    wanted: Option<(String, String)>,
    secret: Option<String>,
}

impl Receiver {
    pub fn start() -> Receiver {
        Receiver::new(None)
    }

    /// With TLS, and a certificate of its own making for these names.
    pub fn start_tls(names: &[&str]) -> Receiver {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|b| {
                b.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)
            })
            .expect("a configuration");
        Receiver::new(Some(Tls { config: Arc::new(config), certificate: made.cert.pem() }))
    }

    fn new(tls: Option<Tls>) -> Receiver {
        let mut receiver = Receiver { port: 0, tls, shared: Arc::default(), acceptor: None };
        receiver.start_again();
        receiver
    }

    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}/coco?in=test", self.port)
    }

    /// What it certifies itself with, as PEM.
    pub fn certificate(&self) -> &str {
        self.tls.as_ref().map_or("", |tls| &tls.certificate)
    }

    /// Ends all connections, and listens no more. What it has stays.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        let open = {
            let mut state = self.state();
            state.stopped = true;
            std::mem::take(&mut state.open)
        };
        self.shared.changed.notify_all();
        for stream in open {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the acceptor, which then sees that it is to stop.
        drop(TcpStream::connect(self.address()));
        acceptor.join().expect("the acceptor has not panicked");
    }

    /// Listens on the port that it had.
    pub fn start_again(&mut self) {
        let listener = TcpListener::bind(self.address()).expect("a free port");
        self.port = listener.local_addr().expect("an address").port();
        self.state().stopped = false;
        let (shared, tls) = (self.shared.clone(), self.tls.as_ref().map(|tls| tls.config.clone()));
        self.acceptor = Some(thread::spawn(move || accept(&listener, &shared, tls.as_ref())));
    }

    /// The rows of a target, as text by their keys.
    pub fn rows(&self, flow: &str, target: &str) -> BTreeMap<String, String> {
        let state = self.state();
        let of_it = state.rows.iter().filter(|((f, t, _), _)| f == flow && t == target);
        of_it.filter_map(|((_, _, key), (_, row))| Some((key.clone(), row.clone()?))).collect()
    }

    /// All requests since it was made, or since [`Receiver::forget_requests`].
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    /// Does this to one of the next requests; faults that are given one by one wait in a queue.
    pub fn next(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    /// Does this to all requests, or nothing any more.
    pub fn always(&self, fault: Option<Fault>) {
        self.state().always = fault;
    }

    /// Lets the answers go that were held.
    pub fn release(&self) {
        self.state().releases += 1;
        self.shared.changed.notify_all();
    }

    /// Refuses changes whose key or row has this text in it: with 200 by their names, with another
    /// status all that came with them.
    pub fn refuse(&self, status: u16, text: &str) {
        self.state().refused = Some((status, text.to_owned()));
    }

    /// Refuses nothing more.
    pub fn refuse_nothing(&self) {
        self.state().refused = None;
    }

    /// Answers 413 to bodies that are longer.
    pub fn largest(&self, bytes: usize) {
        self.state().largest = Some(bytes);
    }

    /// Answers 401 to requests without this header.
    pub fn want(&self, header: &str, value: &str) {
        self.state().wanted = Some((header.to_owned(), value.to_owned()));
    }

    /// Answers 403 to requests that are not signed with this secret.
    pub fn want_signature(&self, secret: &str) {
        self.state().secret = Some(secret.to_owned());
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panics while it looks at it has nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is released or stopped, but no longer than this.
    fn wait(&self, longest: Option<Duration>) {
        let before = self.state().releases;
        let over =
            |state: &mut State| !(state.stopped || longest.is_none() && state.releases > before);
        let longest = longest.unwrap_or(Duration::from_secs(600));
        drop(self.changed.wait_timeout_while(self.state(), longest, over));
    }
}

trait Connection: Read + Write {}

impl<T: Read + Write> Connection for T {}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<&Arc<ServerConfig>>) {
    let mut serving = Vec::new();
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let Ok(copy) = stream.try_clone() else { continue };
        let number = {
            let mut state = shared.state();
            if state.stopped {
                break;
            }
            state.open.push(copy);
            state.connections += 1;
            state.connections
        };
        let (shared, tls) = (shared.clone(), tls.cloned());
        serving.push(thread::spawn(move || {
            let ended = stream.try_clone();
            // An error is the end of the connection, from either side.
            let _ = match tls {
                None => serve(stream, number, &shared),
                Some(config) => ServerConnection::new(config)
                    .map_err(io::Error::other)
                    .and_then(|tls| serve(StreamOwned::new(tls, stream), number, &shared)),
            };
            // The copy that is kept to stop it would keep it open.
            if let Ok(stream) = ended {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }));
    }
    for thread in serving {
        thread.join().expect("a connection's thread has not panicked");
    }
}

/// Answers the requests of a connection.
fn serve(stream: impl Connection, number: usize, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some((mut request, length)) = read_head(&mut stream, number)? {
        let fault = {
            let mut state = shared.state();
            let next = state.faults.pop_front();
            next.or_else(|| state.always.clone())
        };
        if let Some(Fault::AnswerUnread { status }) = fault {
            shared.state().requests.push(request);
            write_answer(stream.get_mut(), status, &[], "", 0)?;
            // Going away with bytes unread would reset the connection, and take the answer along.
            io::copy(&mut stream.take(length as u64), &mut io::sink())?;
            return Ok(());
        }
        let cut = matches!(fault, Some(Fault::CutRequest));
        let mut body = vec![0; if cut { length / 2 } else { length }];
        stream.read_exact(&mut body)?;
        request.body = String::from_utf8(body).map_err(io::Error::other)?;
        shared.state().requests.push(request.clone());

        let mut missing = 0;
        let (status, headers, body) = match &fault {
            Some(Fault::CutRequest | Fault::AnswerUnread { .. }) => return Ok(()),
            Some(Fault::KeepHalf) => {
                shared.state().take(&request, true);
                return Ok(());
            }
            Some(Fault::Answer { status, headers, body }) => {
                (*status, headers.clone(), body.clone())
            }
            None | Some(Fault::CutAnswer | Fault::Late(_) | Fault::Hold) => {
                let (status, body) = shared.state().take(&request, false);
                (status, Vec::new(), body)
            }
        };
        match fault {
            Some(Fault::Late(time)) => shared.wait(Some(time)),
            Some(Fault::Hold) => shared.wait(None),
            Some(Fault::CutAnswer) => missing = 5,
            _ => {}
        }
        write_answer(stream.get_mut(), status, &headers, &body, missing)?;
        if missing > 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// A request without its body, and how long that is. None: there is no other.
pub fn read_head(
    stream: &mut impl BufRead,
    connection: usize,
) -> io::Result<Option<(Request, usize)>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Err(io::Error::other("no request"));
    };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_lowercase(), value.trim().to_owned());
            }
            None => break,
        }
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    Ok(Some((Request { connection, method, path, headers, body: String::new() }, length)))
}

/// Writes an answer, but for the last bytes that are to be missing.
pub fn write_answer(
    stream: &mut impl Write,
    status: u16,
    headers: &[(String, String)],
    body: &str,
    missing: usize,
) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    stream.write_all(&text.as_bytes()[..text.len() - missing])?;
    stream.flush()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    flow: String,
    target: String,
    batch: String,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    op: String,
    key: Box<RawValue>,
    row: Option<Box<RawValue>>,
    version: i64,
}

impl State {
    /// Keeps what a request brings, or the first half of it. Returns the answer's status and body.
    fn take(&mut self, request: &Request, half: bool) -> (u16, String) {
        let message = |status, text: &str| (status, json!({ "message": text }).to_string());
        let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
        if let Some((name, value)) = &self.wanted
            && header(name) != value
        {
            return message(401, "who are you?");
        }
        if let Some(secret) = &self.secret
            && !is_signed(header("x-coco-signature"), &request.body, secret)
        {
            return message(403, "the signature is wrong");
        }
        if self.largest.is_some_and(|largest| request.body.len() > largest) {
            return message(413, "too much at once");
        }
        let mut body: Body = match serde_json::from_str(&request.body) {
            Ok(body) => body,
            Err(e) => return message(500, &format!("the body is wrong: {e}")),
        };
        if request.method != "POST"
            || header("content-type") != "application/json"
            || !header("user-agent").starts_with("coco/")
            || header("idempotency-key") != body.batch
        {
            return message(500, &format!("the request is wrong: {request:?}"));
        }
        let first = self.bodies.entry(body.batch).or_insert_with(|| request.body.clone());
        if *first != request.body {
            return message(500, "an idempotency key came again with another body");
        }
        let mut named = Vec::new();
        for (place, change) in body.changes.iter().enumerate() {
            match self.refusal(change) {
                Some(200) => named.push(json!({ "change": place, "message": "not that one" })),
                Some(status) => return message(status, "one of them is bad"),
                None => {}
            }
        }
        if half {
            body.changes.truncate(body.changes.len() / 2);
        }
        body.changes.retain(|change| self.refusal(change).is_none());
        for change in body.changes {
            let row = match (change.op.as_str(), &change.row) {
                ("upsert", Some(row)) => Some(row.get().to_owned()),
                ("delete", None) => None,
                (op, _) => return message(500, &format!("an {op} is wrong")),
            };
            let place = (body.flow.clone(), body.target.clone(), change.key.get().to_owned());
            // What is older than what is there comes late, and changes nothing.
            let kept = self.rows.entry(place).or_insert((i64::MIN, None));
            if kept.0 <= change.version {
                *kept = (change.version, row);
            }
        }
        (200, json!({ "refused": named }).to_string())
    }

    /// The status that a change is refused with.
    fn refusal(&self, change: &Change) -> Option<u16> {
        let (status, text) = self.refused.as_ref()?;
        let row = change.row.as_ref().map_or("", |row| row.get());
        (change.key.get().contains(text) || row.contains(text)).then_some(*status)
    }
}

/// Whether a body is signed with this secret, as the header says.
pub fn is_signed(header: &str, body: &str, secret: &str) -> bool {
    let Some((seconds, signature)) =
        header.strip_prefix("t=").and_then(|rest| rest.split_once(",v1="))
    else {
        return false;
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let Ok(time) = seconds.parse::<u64>() else { return false };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return false };
    mac.update(format!("{seconds}.{body}").as_bytes());
    let expected = format!("{:x}", mac.finalize().into_bytes());
    now.as_secs().abs_diff(time) <= 300 && expected == signature
}

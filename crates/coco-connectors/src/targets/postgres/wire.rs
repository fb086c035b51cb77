//! Bounds what a server sends, before the client stores it.
//!
//! The client accepts as much as a server sends: a message of up to 2 GB, any number of rows, and
//! descriptions of types within types. It also computes what a server asks for: a password hash
//! with any number of iterations. This module is between the socket and the client, and reads the
//! frames of the protocol as they pass.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Maximum bytes of a message. The error of a trigger may contain a whole row.
const LONGEST_MESSAGE: usize = 16 << 20;
/// Maximum bytes of an answer. Each message also counts the memory that the client needs for it.
const LONGEST_ANSWER: usize = 32 << 20;
const PER_MESSAGE: usize = 256;
/// Maximum number of answers to one request. The client asks by itself for types that it does not
/// know, and for their component types.
const MOST_ANSWERS: usize = 64;
/// Maximum bytes of a login message, or of a setting.
const LONGEST_SETTING: usize = 64 << 10;
/// Maximum number of settings that a server reports.
const MOST_SETTINGS: usize = 256;
/// Maximum number of iterations of a password hash: about one second. PostgreSQL's default is
/// 4,096.
const MOST_ITERATIONS: u64 = 1_000_000;

/// The size of a message's tag and length.
const HEADER: usize = 5;

/// Counts what was received since a request was sent, and why the connection was given up.
#[derive(Default)]
pub struct Meter {
    bytes: AtomicUsize,
    answers: AtomicUsize,
    excess: OnceLock<Excess>,
}

/// The limit that a server has exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    Message(usize),
    Answer,
    Answers,
    Settings,
    Iterations,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Excess::Message(bytes) => write!(f, "the server announces a message of {bytes} bytes"),
            Excess::Answer => {
                write!(f, "the server's answer is longer than {} MB", LONGEST_ANSWER >> 20)
            }
            Excess::Answers => f.write_str("the server sends too many descriptions of types"),
            Excess::Settings => f.write_str("the server reports too many settings"),
            Excess::Iterations => {
                write!(
                    f,
                    "the server requires a password hash of more than {MOST_ITERATIONS} \
                     iterations"
                )
            }
        }
    }
}

impl std::error::Error for Excess {}

impl Meter {
    /// Resets the counts for the next request.
    pub fn begin(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.answers.store(0, Ordering::Relaxed);
    }

    /// Returns the limit that was exceeded, if any.
    pub fn excess(&self) -> Option<Excess> {
        self.excess.get().copied()
    }
}

/// A connection with limits on what the server sends.
pub struct Bounded<S> {
    stream: S,
    frames: Frames,
}

impl<S> Bounded<S> {
    /// Wraps a stream. If the client asks for TLS, the first byte from the server answers that
    /// request.
    pub fn new(stream: S, meter: Arc<Meter>, asks_for_tls: bool) -> Bounded<S> {
        let place = if asks_for_tls { Place::TlsAnswer } else { Place::start() };
        let (parameters, kept) = (HashSet::new(), Vec::new());
        Bounded { stream, frames: Frames { meter, place, parameters, kept } }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let received = buffer.filled().get(before..).unwrap_or_default();
        Poll::Ready(self.frames.take(received).map_err(|excess| {
            let excess = *self.frames.meter.excess.get_or_init(|| excess);
            io::Error::new(io::ErrorKind::InvalidData, excess)
        }))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: TlsStream + Unpin> TlsStream for Bounded<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

/// A TCP or Unix socket.
pub enum AnySocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AnySocket {
    fn reader(self: Pin<&mut Self>) -> Pin<&mut (dyn AsyncRead + Send + Unpin)> {
        match self.get_mut() {
            AnySocket::Tcp(stream) => Pin::new(stream),
            AnySocket::Unix(stream) => Pin::new(stream),
        }
    }

    fn writer(self: Pin<&mut Self>) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        match self.get_mut() {
            AnySocket::Tcp(stream) => Pin::new(stream),
            AnySocket::Unix(stream) => Pin::new(stream),
        }
    }
}

impl AsyncRead for AnySocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reader().poll_read(cx, buffer)
    }
}

impl AsyncWrite for AnySocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writer().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writer().poll_write_vectored(cx, slices)
    }

    /// Both kinds support it efficiently.
    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// Creates TLS below the limits, so that decrypted data is counted.
pub struct BoundedTls {
    pub maker: MakeRustlsConnect,
    pub host: String,
}

impl TlsConnect<Bounded<AnySocket>> for BoundedTls {
    type Stream = Bounded<<MakeRustlsConnect as MakeTlsConnect<AnySocket>>::Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Stream>> + Send>>;

    fn connect(mut self, outer: Bounded<AnySocket>) -> Self::Future {
        Box::pin(async move {
            let made = MakeTlsConnect::<AnySocket>::make_tls_connect(&mut self.maker, &self.host);
            let stream = made.map_err(io::Error::other)?.connect(outer.stream).await?;
            Ok(Bounded::new(stream, outer.frames.meter, false))
        })
    }
}

/// The position in the protocol of the next byte from the server.
enum Place {
    TlsAnswer,
    Header { bytes: [u8; HEADER], filled: usize },
    Body { tag: u8, left: usize },
}

impl Place {
    fn start() -> Place {
        Place::Header { bytes: [0; HEADER], filled: 0 }
    }
}

struct Frames {
    meter: Arc<Meter>,
    place: Place,
    /// The names of the reported settings.
    parameters: HashSet<Vec<u8>>,
    /// The body of a message that this module reads, too.
    kept: Vec<u8>,
}

impl Frames {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Excess> {
        while let Some((first, rest)) = bytes.split_first() {
            match &mut self.place {
                Place::TlsAnswer => {
                    bytes = rest;
                    self.place = Place::start();
                }
                Place::Header { bytes: header, filled } => {
                    header[*filled] = *first;
                    *filled += 1;
                    bytes = rest;
                    if *filled == HEADER {
                        let header = *header;
                        self.begin_message(header)?;
                    }
                }
                Place::Body { tag, left } => {
                    let (here, after) = bytes.split_at(bytes.len().min(*left));
                    *left -= here.len();
                    bytes = after;
                    let (tag, is_over) = (*tag, *left == 0);
                    if is_read(tag) {
                        self.kept.extend_from_slice(here);
                    }
                    if is_over {
                        self.end_message(tag)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_message(&mut self, [tag, length @ ..]: [u8; HEADER]) -> Result<(), Excess> {
        // The client rejects a length that is shorter than its own field, or negative.
        let length = u32::from_be_bytes(length) as usize;
        let longest = if is_read(tag) { LONGEST_SETTING } else { LONGEST_MESSAGE };
        if length > longest {
            return Err(Excess::Message(length));
        }
        // The client drops notices and notifications as they arrive.
        if !matches!(tag, b'N' | b'A') {
            let counted = length + PER_MESSAGE;
            if self.meter.bytes.fetch_add(counted, Ordering::Relaxed) + counted > LONGEST_ANSWER {
                return Err(Excess::Answer);
            }
        }
        if tag == b'Z' && self.meter.answers.fetch_add(1, Ordering::Relaxed) >= MOST_ANSWERS {
            return Err(Excess::Answers);
        }
        self.kept.clear();
        match length.saturating_sub(size_of::<u32>()) {
            0 => self.end_message(tag),
            left => {
                self.place = Place::Body { tag, left };
                Ok(())
            }
        }
    }

    fn end_message(&mut self, tag: u8) -> Result<(), Excess> {
        self.place = Place::start();
        match tag {
            b'S' => {
                let name = self.kept.split(|byte| *byte == 0).next().unwrap_or_default();
                self.parameters.insert(name.to_vec());
                if self.parameters.len() > MOST_SETTINGS { Err(Excess::Settings) } else { Ok(()) }
            }
            b'R' if iterations(&self.kept).is_some_and(|n| n > MOST_ITERATIONS) => {
                Err(Excess::Iterations)
            }
            _ => Ok(()),
        }
    }
}

/// Reports whether this module reads the body of such a message: of settings, and of the login.
fn is_read(tag: u8) -> bool {
    matches!(tag, b'S' | b'R')
}

/// Returns the number of iterations of a password hash, if a login message sets it.
fn iterations(body: &[u8]) -> Option<u64> {
    /// AuthenticationSASLContinue
    const CONTINUE: [u8; 4] = [0, 0, 0, 11];
    let attributes = str::from_utf8(body.strip_prefix(&CONTINUE)?).ok()?;
    let digits = attributes.split(',').find_map(|attribute| attribute.strip_prefix("i="))?;
    // The client rejects a text that is not a number, but may accept a number with more digits than
    // fit.
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Frames {
        let (meter, parameters) = (Arc::new(Meter::default()), HashSet::new());
        Frames { meter, place: Place::start(), parameters, kept: Vec::new() }
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("a length").to_be_bytes();
        [&[tag], &length[..], body].concat()
    }

    #[test]
    fn messages_pass_in_whatever_pieces_they_come() {
        let sent = [message(b'D', b"abc"), message(b'1', b""), message(b'Z', b"I")].concat();
        for size in 1..=sent.len() {
            let mut frames = frames();
            assert!(sent.chunks(size).all(|piece| frames.take(piece).is_ok()), "{size}");
            let counted = frames.meter.bytes.load(Ordering::Relaxed);
            assert_eq!(counted, sent.len() - 3 + 3 * PER_MESSAGE);
            assert_eq!(frames.meter.answers.load(Ordering::Relaxed), 1);
            assert!(matches!(frames.place, Place::Header { filled: 0, .. }));
        }
    }

    #[test]
    fn a_long_message_is_refused_before_it_comes() {
        for length in [LONGEST_MESSAGE as u32 + 1, i32::MAX as u32, u32::MAX] {
            let header = [&b"D"[..], &length.to_be_bytes()].concat();
            assert_eq!(frames().take(&header), Err(Excess::Message(length as usize)));
        }
        let header = [&b"S"[..], &(LONGEST_SETTING as u32 + 1).to_be_bytes()].concat();
        assert_eq!(frames().take(&header), Err(Excess::Message(LONGEST_SETTING + 1)));
    }

    #[test]
    fn an_answer_without_end_is_refused() {
        let row = message(b'D', &[0, 0]);
        let mut rows = frames();
        let taken = (0..).take_while(|_| rows.take(&row).is_ok()).count();
        assert_eq!(taken, LONGEST_ANSWER / (row.len() - 1 + PER_MESSAGE));
        rows.meter.begin();
        assert_eq!(frames().take(&row), Ok(()));
        // Notices are dropped as they arrive.
        let mut notices = frames();
        assert!((0..2 * taken).all(|_| notices.take(&message(b'N', &[0])).is_ok()));
        let mut answers = frames();
        let ready = message(b'Z', b"I");
        assert!((0..MOST_ANSWERS).all(|_| answers.take(&ready).is_ok()));
        assert_eq!(answers.take(&ready), Err(Excess::Answers));
    }

    #[test]
    fn settings_without_end_are_refused() {
        let mut frames = frames();
        for round in 0..3 {
            for n in 0..MOST_SETTINGS {
                let setting = message(b'S', format!("name{n}\0{round}\0").as_bytes());
                assert_eq!(frames.take(&setting), Ok(()), "{n}");
            }
        }
        assert_eq!(frames.take(&message(b'S', b"one more\0\0")), Err(Excess::Settings));
    }

    #[test]
    fn the_answer_about_tls_is_no_message() {
        let mut bounded = Bounded::new((), Arc::new(Meter::default()), true);
        assert_eq!(bounded.frames.take(b"N"), Ok(()));
        assert!(matches!(bounded.frames.place, Place::Header { filled: 0, .. }));
    }

    #[test]
    fn a_password_is_not_hashed_without_end() {
        let ask = |iterations: &str| {
            let body = format!("r=abc,s=QUJD,i={iterations}");
            frames().take(&message(b'R', &[&[0, 0, 0, 11], body.as_bytes()].concat()))
        };
        assert_eq!((ask("4096"), ask("1000000")), (Ok(()), Ok(())));
        for many in ["1000001", "4294967295", "99999999999999999999999"] {
            assert_eq!(ask(many), Err(Excess::Iterations), "{many}");
        }
    }
}

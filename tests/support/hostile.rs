//! Servers that do what no server should: a script for each connection, and what such scripts need.
#![allow(dead_code)] // each file of tests uses a part

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// A server on a free port of this machine; it stops when dropped.
pub struct Hostile {
    pub port: u16,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stopped: AtomicBool,
    connections: AtomicUsize,
}

impl Hostile {
    /// Runs the script with each connection, on a thread of its own. The script's error is that the
    /// other side has given up.
    pub fn start(
        script: impl Fn(&mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Hostile {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (state, script) = (Arc::new(State::default()), Arc::new(script));
        let of_acceptor = state.clone();
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming() {
                if of_acceptor.stopped.load(Ordering::Relaxed) {
                    return;
                }
                of_acceptor.connections.fetch_add(1, Ordering::Relaxed);
                let (mut stream, script) = (stream.expect("a connection"), script.clone());
                thread::spawn(move || script(&mut stream));
            }
        });
        Hostile { port, state, acceptor: Some(acceptor) }
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        // It waits for a connection.
        TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).ok();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

/// Waits until the other side has closed the connection.
pub fn wait_for_end(stream: &mut TcpStream) -> io::Result<()> {
    io::copy(stream, &mut io::sink()).map(drop)
}

/// Sends the same for ever.
pub fn send_for_ever(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let many = bytes.repeat((64 * 1024 / bytes.len()).max(1));
    loop {
        stream.write_all(&many)?;
    }
}

fn read<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// What a server of Postgres' says.
pub mod postgres {
    use super::{Read, TcpStream, Write, io, read};

    pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("a length").to_be_bytes();
        [&[tag], &length[..], body].concat()
    }

    /// Takes the startup message. TLS is refused.
    pub fn startup(stream: &mut TcpStream) -> io::Result<()> {
        loop {
            let length = u32::from_be_bytes(read(stream)?) as usize;
            let mut body = vec![0; length - 4];
            stream.read_exact(&mut body)?;
            if body != 80_877_103_u32.to_be_bytes() {
                return Ok(());
            }
            stream.write_all(b"N")?;
        }
    }

    /// Takes the startup message, and lets in.
    pub fn let_in(stream: &mut TcpStream) -> io::Result<()> {
        startup(stream)?;
        stream.write_all(&message(b'R', &[0; 4]))?;
        stream.write_all(&ready())
    }

    pub fn ready() -> Vec<u8> {
        message(b'Z', b"I")
    }

    /// Takes messages up to one of this tag.
    pub fn until(stream: &mut TcpStream, tag: u8) -> io::Result<()> {
        loop {
            let [found] = read(stream)?;
            let length = u32::from_be_bytes(read(stream)?) as usize;
            io::copy(&mut stream.take(length as u64 - 4), &mut io::sink())?;
            if found == tag {
                return Ok(());
            }
        }
    }

    /// Says that a statement has so many parameters of type oid, and columns of these types.
    pub fn prepared(parameters: usize, columns: &[u32]) -> Vec<u8> {
        let mut all = message(b'1', b"");
        let count = |n: usize| u16::try_from(n).expect("a count").to_be_bytes();
        let oids = 26_u32.to_be_bytes().repeat(parameters);
        all.extend(message(b't', &[&count(parameters)[..], &oids].concat()));
        let mut described = count(columns.len()).to_vec();
        for oid in columns {
            described.extend(b"c\0");
            described.extend([0; 6]);
            described.extend(oid.to_be_bytes());
            described.extend([0; 8]);
        }
        all.extend(message(b'T', &described));
        all.extend(ready());
        all
    }

    pub fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = u16::try_from(values.len()).expect("a count").to_be_bytes().to_vec();
        for value in values {
            match value {
                Some(value) => {
                    body.extend(u32::try_from(value.len()).expect("a length").to_be_bytes());
                    body.extend(*value);
                }
                None => body.extend((-1_i32).to_be_bytes()),
            }
        }
        message(b'D', &body)
    }

    pub fn error(fields: &[(u8, &[u8])]) -> Vec<u8> {
        let fields = fields.iter().map(|(kind, text)| [&[*kind], *text, &[0]].concat());
        message(b'E', &[fields.collect::<Vec<_>>().concat(), vec![0]].concat())
    }
}

/// What a server of Neo4j's says.
pub mod bolt {
    use super::{Read, TcpStream, Write, io, read};

    pub const SUCCESS: u8 = 0x70;
    pub const RECORD: u8 = 0x71;
    pub const FAILURE: u8 = 0x7F;

    /// A text, as PackStream has it.
    pub fn text(text: &str) -> Vec<u8> {
        let size = u32::try_from(text.len()).expect("a length").to_be_bytes();
        [&[0xD2][..], &size, text.as_bytes()].concat()
    }

    /// A map of a few entries, the values as they are sent.
    pub fn map(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let entries = entries.iter().map(|(name, value)| [text(name), value.clone()].concat());
        let count = u8::try_from(entries.len()).expect("a few");
        [vec![0xA0 | count], entries.collect::<Vec<_>>().concat()].concat()
    }

    /// A message of one field, in chunks.
    pub fn message(tag: u8, field: &[u8]) -> Vec<u8> {
        let mut sent = Vec::new();
        for chunk in [&[0xB1, tag], field].concat().chunks(60_000) {
            sent.extend(u16::try_from(chunk.len()).expect("a chunk").to_be_bytes());
            sent.extend(chunk);
        }
        sent.extend([0, 0]);
        sent
    }

    pub fn success() -> Vec<u8> {
        message(SUCCESS, &map(&[]))
    }

    pub fn failure(code: &str, said: &str) -> Vec<u8> {
        message(FAILURE, &map(&[("code", text(code)), ("message", text(said))]))
    }

    /// Agrees on version 4.4.
    pub fn greet(stream: &mut TcpStream) -> io::Result<()> {
        read::<20>(stream)?;
        stream.write_all(&[0, 0, 4, 4])
    }

    /// Takes a message, and returns its tag.
    pub fn receive(stream: &mut TcpStream) -> io::Result<u8> {
        let mut bytes = Vec::new();
        loop {
            match u16::from_be_bytes(read(stream)?) {
                0 if bytes.is_empty() => {}
                0 => return Ok(bytes[1]),
                size => {
                    stream.take(size.into()).read_to_end(&mut bytes)?;
                }
            }
        }
    }

    /// Answers the login and the beginning of a transaction as it should be.
    pub fn begin(stream: &mut TcpStream) -> io::Result<()> {
        greet(stream)?;
        for _ in 0..2 {
            receive(stream)?;
            stream.write_all(&success())?;
        }
        Ok(())
    }

    /// As [`begin`], and takes a statement.
    pub fn run(stream: &mut TcpStream) -> io::Result<()> {
        begin(stream)?;
        receive(stream)?;
        receive(stream)?;
        Ok(())
    }
}

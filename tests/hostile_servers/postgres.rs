//! A hostile server of Postgres'.

use std::io::{Write, copy, sink};
use std::net::TcpStream;

use super::hostile::postgres::{error, let_in, message, prepared, ready, row, startup, until};
use super::hostile::{Hostile, send_for_ever, wait_for_end};
use super::*;

type Script = fn(&mut TcpStream) -> std::io::Result<()>;

fn fails(server: &Hostile, also: &[(&str, &str)]) -> DeliveryError {
    let port = server.port.to_string();
    let here = [("host", "127.0.0.1"), ("port", port.as_str()), ("statement_timeout", "20")];
    let user = [("user", "ada"), ("password", SECRET)];
    let error = prepare("coco_postgres", access(&[&here[..], also].concat(), &user), &schema());
    let error = error.expect_err("an error");
    shows_no_secret(&error);
    error
}

/// Lets in, and announces a message of 2 GB as the answer to a statement.
fn announces_much(stream: &mut TcpStream) -> std::io::Result<()> {
    let_in(stream)?;
    until(stream, b'S')?;
    stream.write_all(&[b'D', 0x7F, 0xFF, 0xFF, 0xFF])?;
    send_for_ever(stream, &[0])
}

/// The same before it lets in.
fn announces_much_at_once(stream: &mut TcpStream) -> std::io::Result<()> {
    startup(stream)?;
    stream.write_all(&[b'E', 0x7F, 0xFF, 0xFF, 0xFF])?;
    send_for_ever(stream, &[0])
}

fn sends_rows_for_ever(stream: &mut TcpStream) -> std::io::Result<()> {
    let_in(stream)?;
    until(stream, b'S')?;
    // name[]
    stream.write_all(&prepared(0, &[1003]))?;
    until(stream, b'S')?;
    stream.write_all(&message(b'2', b""))?;
    send_for_ever(stream, &row(&[None]))
}

fn reports_settings_for_ever(stream: &mut TcpStream) -> std::io::Result<()> {
    startup(stream)?;
    stream.write_all(&message(b'R', &[0; 4]))?;
    for n in 0.. {
        stream.write_all(&message(b'S', format!("setting{n}\0value\0").as_bytes()))?;
    }
    Ok(())
}

/// Each type that it describes is an array of another that the client has not heard of.
fn describes_types_for_ever(stream: &mut TcpStream) -> std::io::Result<()> {
    let_in(stream)?;
    until(stream, b'S')?;
    stream.write_all(&prepared(0, &[100_000]))?;
    until(stream, b'S')?;
    stream.write_all(&prepared(1, &[19, 18, 26, 26, 26, 19, 26]))?;
    for oid in 100_001_u32.. {
        until(stream, b'S')?;
        let (none, next) = (0_u32.to_be_bytes(), oid.to_be_bytes());
        let fields: [Option<&[u8]>; 7] =
            [Some(b"t"), Some(b"b"), Some(&next), None, Some(&none), Some(b"s"), Some(&none)];
        stream.write_all(&message(b'2', b""))?;
        stream.write_all(&row(&fields))?;
        stream.write_all(&message(b'C', b"SELECT 1\0"))?;
        stream.write_all(&ready())?;
    }
    Ok(())
}

/// Four billion hashes would take an hour of a thread that nothing interrupts.
fn asks_for_many_hashes(stream: &mut TcpStream) -> std::io::Result<()> {
    startup(stream)?;
    stream.write_all(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"))?;
    until(stream, b'p')?;
    stream.write_all(&message(b'R', b"\0\0\0\x0br=abc,s=QUJD,i=4294967295"))?;
    wait_for_end(stream)
}

#[test]
fn what_a_server_sends_is_bounded() {
    for (script, why) in [
        (announces_much as Script, "announces a message of 2147483647 bytes"),
        (announces_much_at_once, "announces a message of 2147483647 bytes"),
        (sends_rows_for_ever, "answer is longer than 32 MB"),
        (reports_settings_for_ever, "too many settings"),
        (describes_types_for_ever, "too many descriptions of types"),
        (asks_for_many_hashes, "password hash of more than"),
    ] {
        let error = fails(&Hostile::start(script), &[]);
        assert!(error.message.contains(why), "{why}: {error:?}");
        assert_eq!(error.sqlstate, "08P01", "{why}");
    }
}

#[test]
fn what_a_server_says_shows_no_secret() {
    for form in forms() {
        for let_in_first in [false, true] {
            let text = format!("no {form} {}", "x".repeat(5 << 20));
            let said = error(&[
                (b'S', b"ERROR"),
                (b'C', b"28P01"),
                (b'M', text.as_bytes()),
                (b'D', text.as_bytes()),
                (b'H', text.as_bytes()),
            ]);
            let server = Hostile::start(move |stream| {
                match let_in_first {
                    true => let_in(stream).and_then(|()| until(stream, b'S'))?,
                    false => startup(stream)?,
                }
                stream.write_all(&said)?;
                stream.write_all(&ready())?;
                wait_for_end(stream)
            });
            let error = fails(&server, &[]);
            assert_eq!(error.sqlstate, "28P01");
            assert!(error.message.starts_with("no "), "{error:?}");
            assert!(error.message.contains("***"), "{error:?}");
        }
    }
}

#[test]
fn what_is_no_error_is_one_all_the_same() {
    for fields in [
        // No SQLSTATE, success as one, and what is not UTF-8.
        vec![(b'S', &b"ERROR"[..]), (b'C', b"'; drop table x; --"), (b'M', b"why")],
        vec![(b'S', b"ERROR"), (b'C', b"00000"), (b'M', b"why")],
        vec![(b'S', b"ERROR"), (b'C', b"2350\xff"), (b'M', b"why")],
        vec![(b'S', b"ERROR"), (b'C', b"23505"), (b'M', b"\xff\xfe")],
        vec![(b'M', b"why")],
        vec![],
    ] {
        let said = error(&fields);
        let server = Hostile::start(move |stream| {
            startup(stream)?;
            stream.write_all(&said)
        });
        let error = fails(&server, &[]);
        assert!(!error.sqlstate.starts_with("00"), "{error:?}");
    }
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for_long() {
    let scripts: [Script; 3] = [
        wait_for_end,
        // It takes what is sent, and answers nothing.
        |stream| let_in(stream).and_then(|()| copy(stream, &mut sink()).map(drop)),
        // A byte at a time, of a message that never ends.
        |stream| loop {
            stream.write_all(b"N")?;
            std::thread::sleep(std::time::Duration::from_millis(20));
        },
    ];
    for script in scripts {
        let limits = [("connect_timeout", "1"), ("statement_timeout", "1")];
        let error = fails(&Hostile::start(script), &limits);
        assert!(error.sqlstate.starts_with("08"), "{error:?}");
    }
}

//! A hostile server of Qdrant's: gRPC over HTTP/2, written by hand.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::hostile::{Hostile, send_for_ever, wait_for_end};
use super::*;

const KEY: &str = "p4ss-w0rd-key";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// A header that is not compressed. Its parts are shorter than 127 bytes, but for the value, which
/// may be longer.
fn header(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| match text.len() {
        short @ 0..127 => vec![u8::try_from(short).expect("short")],
        long => {
            let mut rest = long - 127;
            let mut bytes = vec![127];
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128 + 128).expect("seven bits"));
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).expect("seven bits"));
            bytes
        }
    };
    [vec![0], length(name), name.into(), length(value), value.into()].concat()
}

/// Takes what a client begins with, and its first request.
fn greet(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24])?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut body = vec![0; length as usize];
        stream.read_exact(&mut body)?;
        if head[3] == DATA && head[4] & END_STREAM != 0 {
            return Ok(());
        }
    }
}

/// Refuses the request, with these headers beside the status.
fn refusing(headers: Vec<(&'static str, String)>) -> Hostile {
    Hostile::start(move |stream| {
        greet(stream)?;
        // :status 200
        let mut all = vec![0x88];
        all.extend(header("content-type", "application/grpc"));
        for (name, value) in &headers {
            all.extend(header(name, value));
        }
        for (n, part) in all.chunks(16_000).enumerate() {
            let is_last = (n + 1) * 16_000 >= all.len();
            let end = if is_last { END_HEADERS } else { 0 };
            let (kind, flags) = if n == 0 { (HEADERS, END_STREAM | end) } else { (9, end) };
            stream.write_all(&frame(kind, flags, 1, part))?;
        }
        wait_for_end(stream)
    })
}

fn fails(server: &Hostile, also: &[(&str, &str)]) -> DeliveryError {
    let url = format!("http://127.0.0.1:{}", server.port);
    let options = [&[("url", url.as_str())], also].concat();
    let mut schema = schema();
    schema.columns[1].type_schema = "public".to_owned();
    schema.columns[1].type_name = "vector(3)".to_owned();
    let access = access(&options, &[("api_key", KEY)]);
    let error = prepare("coco_qdrant", access, &schema).expect_err("an error");
    shows_no_secret(&error);
    error
}

#[test]
fn what_a_server_says_shows_no_secret() {
    // base64 of `user:p4ss-w0rd-key`
    for form in [KEY, "P4SS-W0RD-KEY", "dXNlcjpwNHNzLXcwcmQta2V5"] {
        let said = format!("no {form} here%00 {}", "x".repeat(5000));
        let server = refusing(vec![
            ("grpc-status", "16".to_owned()),
            ("grpc-message", said),
            ("retry-after", u64::MAX.to_string()),
        ]);
        let error = fails(&server, &[]);
        let all = format!("{error:?}");
        assert!(!all.contains(form) && !all.contains("NHNzLXcwcmQt"), "{all}");
        assert!(error.message.contains("***"), "{all}");
        assert_eq!(error.retry_after.map(|wait| wait.as_secs()), Some(3600));
    }
}

#[test]
fn what_a_server_sends_is_bounded() {
    // Headers of a megabyte.
    let long = "x".repeat(1 << 20);
    let server = refusing(vec![("grpc-status", "16".to_owned()), ("grpc-message", long)]);
    fails(&server, &[("request_timeout", "5")]);
    // A message of 2 GB.
    let server = Hostile::start(|stream| {
        greet(stream)?;
        let head = [vec![0x88], header("content-type", "application/grpc")].concat();
        stream.write_all(&frame(HEADERS, END_HEADERS, 1, &head))?;
        stream.write_all(&frame(DATA, 0, 1, &[0, 0x7F, 0xFF, 0xFF, 0xFF]))?;
        send_for_ever(stream, &frame(DATA, 0, 1, &[0; 1000]))
    });
    let error = fails(&server, &[("request_timeout", "20")]);
    assert!(error.message.contains("too large"), "{error:?}");
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for_long() {
    let scripts: [fn(&mut TcpStream) -> std::io::Result<()>; 2] =
        [wait_for_end, |stream| greet(stream).and_then(|()| wait_for_end(stream))];
    for script in scripts {
        let limits = [("connect_timeout", "1"), ("request_timeout", "1")];
        fails(&Hostile::start(script), &limits);
    }
}

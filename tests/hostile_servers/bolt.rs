//! A hostile server of Neo4j's.

use std::io::Write;
use std::net::TcpStream;

use super::hostile::bolt::{
    RECORD, SUCCESS, begin, failure, greet, map, message, receive, run, success, text,
};
use super::hostile::{Hostile, send_for_ever, wait_for_end};
use super::*;

type Script = fn(&mut TcpStream) -> std::io::Result<()>;

fn fails(server: &Hostile) -> DeliveryError {
    let url = format!("bolt://127.0.0.1:{}", server.port);
    let server = [("url", url.as_str()), ("connect_timeout", "20"), ("request_timeout", "20")];
    let user = [("user", "user"), ("password", SECRET)];
    let error = prepare("coco_neo4j", access(&server, &user), &schema()).expect_err("an error");
    shows_no_secret(&error);
    error
}

#[test]
fn what_a_server_sends_is_bounded() {
    for (script, why) in [
        (
            (|stream| {
                greet(stream)?;
                send_for_ever(stream, &[&[0x01, 0x00][..], &[0xC0; 256]].concat())
            }) as Script,
            "sends a message of more than 8388608 bytes",
        ),
        (
            |stream| {
                run(stream)?;
                stream.write_all(&message(SUCCESS, &[0x91; 1 << 20]))?;
                wait_for_end(stream)
            },
            "nested too deep",
        ),
        (
            |stream| {
                greet(stream)?;
                let many = [&[0xD6, 0, 0x20, 0, 0][..], &[0xC0; 2 << 20]].concat();
                stream.write_all(&message(SUCCESS, &many))?;
                wait_for_end(stream)
            },
            "too many values",
        ),
        (
            |stream| {
                greet(stream)?;
                stream.write_all(&message(SUCCESS, &[0xD6, 0xFF, 0xFF, 0xFF, 0xFF]))?;
                wait_for_end(stream)
            },
            "breaks off",
        ),
        (
            |stream| {
                run(stream)?;
                let fields = map(&[("fields", [vec![0x91], text("number")].concat())]);
                stream.write_all(&message(SUCCESS, &fields))?;
                send_for_ever(stream, &message(RECORD, &[0x91, 0x00]))
            },
            "returns more than 1000 rows",
        ),
        (
            |stream| {
                greet(stream)?;
                stream.write_all(&message(SUCCESS, &[0x82, 0xFF, 0xFE]))?;
                wait_for_end(stream)
            },
            "not UTF-8",
        ),
        (
            |stream| {
                greet(stream)?;
                stream.write_all(&message(0x42, &map(&[])))?;
                wait_for_end(stream)
            },
            "tag 66",
        ),
        (
            |stream| {
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
                wait_for_end(stream)
            },
            "no known version of Bolt",
        ),
    ] {
        let error = fails(&Hostile::start(script));
        assert!(error.message.contains(why), "{why}: {error:?}");
        assert_eq!(error.sqlstate, "08P01", "{why}");
    }
}

#[test]
fn what_a_server_says_shows_no_secret() {
    for form in forms() {
        let at_login: bool = form.len() % 2 == 0;
        let long = format!("no {form}\0 {}", "x".repeat(2 << 20));
        let server = Hostile::start(move |stream| {
            match at_login {
                true => greet(stream)?,
                false => begin(stream)?,
            }
            receive(stream)?;
            stream.write_all(&failure("Neo.ClientError.Security.Unauthorized", &long))?;
            stream.write_all(&success())?;
            wait_for_end(stream)
        });
        let error = fails(&server);
        assert_eq!(error.sqlstate, "28P01", "{error:?}");
        assert!(error.message.contains("***"), "{error:?}");
    }
}

#[test]
fn a_failure_need_not_say_what_it_is() {
    for said in [
        map(&[]),
        map(&[("code", vec![0x01]), ("message", vec![0x90])]),
        vec![0xC0],
        map(&[("code", text(&"Neo.".repeat(100_000))), ("message", text("why"))]),
    ] {
        let server = Hostile::start(move |stream| {
            greet(stream)?;
            receive(stream)?;
            stream.write_all(&message(0x7F, &said))?;
            wait_for_end(stream)
        });
        let error = fails(&server);
        assert!(["08P01", "XX000"].contains(&error.sqlstate.as_str()), "{error:?}");
    }
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for_long() {
    let scripts: [Script; 3] = [
        wait_for_end,
        // It says again and again that it is still there.
        |stream| greet(stream).and_then(|()| send_for_ever(stream, &[0, 0])),
        |stream| begin(stream).and_then(|()| send_for_ever(stream, &[0, 0])),
    ];
    for script in scripts {
        let server = Hostile::start(script);
        let url = format!("bolt://127.0.0.1:{}", server.port);
        let options = [("url", url.as_str()), ("connect_timeout", "1"), ("request_timeout", "1")];
        let user = [("user", "user"), ("password", SECRET)];
        let error = prepare("coco_neo4j", access(&options, &user), &schema());
        assert!(error.expect_err("an error").sqlstate.starts_with("08"));
    }
}

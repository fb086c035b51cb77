//! A hostile server that speaks HTTP: a webhook, a model, a service.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use super::engine::change::{Change, Values};
use super::engine::provider::{Answer, Job, JobOutcome, Task};
use super::hostile::{Hostile, send_for_ever, wait_for_end};
use super::*;

/// Takes a request, body and all.
fn take(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if lower.trim().is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length])
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Answers each request alike.
fn answering(sent: Vec<u8>) -> Hostile {
    Hostile::start(move |stream| {
        loop {
            take(stream)?;
            stream.write_all(&sent)?;
        }
    })
}

/// Answers without end.
fn flooding(head: &'static str, piece: Vec<u8>) -> Hostile {
    Hostile::start(move |stream| {
        take(stream)?;
        stream.write_all(head.as_bytes())?;
        send_for_ever(stream, &piece)
    })
}

fn url(server: &Hostile) -> String {
    format!("http://127.0.0.1:{}/v1", server.port)
}

fn post(server: &Hostile, also: &[(&str, &str)]) -> Result<Vec<RejectedChange>, DeliveryError> {
    let url = url(server);
    let options = [&[("url", url.as_str())], also].concat();
    let user = [("user", "user"), ("password", SECRET)];
    let json = |text: &str| Values::Json(text.to_owned());
    let change = Change { key: json("{\"id\":1}"), row: Some(json("{\"id\":1}")), version: 1 };
    apply("coco_http", access(&options, &user), &schema(), &[change])
}

fn ask(server: &Hostile, task: Task, inputs: &[&str], also: &[(&str, &str)]) -> JobOutcome {
    let url = url(server);
    let options = [&[("url", url.as_str()), ("max_retries", "0")], also].concat();
    let key = match task {
        Task::Post { .. } => [("user", "user"), ("password", SECRET)].to_vec(),
        _ => [("api_key", "p4ss/w%rd-key")].to_vec(),
    };
    let access = access(&options, &key);
    let inputs = inputs.iter().map(|text| (*text).to_owned()).collect();
    // What a process knows of a server is kept by its name.
    let job = Job { server: url.clone(), task, access, inputs, budget: None };
    runtime().block_on(providers::ask(vec![job])).pop().expect("an outcome")
}

fn embed(dimensions: Option<u32>) -> Task {
    Task::Embed { model: "m".to_owned(), dimensions }
}

fn generate() -> Task {
    Task::Generate { model: "m".to_owned(), schema: None }
}

#[test]
fn an_answer_of_a_model_is_bounded() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\n\r\n";
    let service = |server: &Hostile| Task::Post { url: format!("{}/x", url(server)) };
    for piece in ["[", "{\"data\":", "1,", " ", "{\"message\":{}},", "\\u0000"] {
        let server = flooding(HEAD, piece.as_bytes().to_vec());
        for task in [embed(None), embed(Some(8)), generate(), service(&server)] {
            let error = ask(&server, task, &["a", "b"], &[]).error.expect("an error");
            assert_eq!(error.sqlstate, "08P01", "{error:?}");
            assert!(error.message.contains("is longer than"), "{error:?}");
        }
    }
    // Why there is no answer is shorter still, and what is longer says nothing.
    let server = flooding("HTTP/1.1 401 No\r\n\r\n", b"{\"message\":\"x\"".to_vec());
    let error = ask(&server, embed(None), &["a"], &[]).error.expect("an error");
    assert_eq!((error.sqlstate.as_str(), error.detail), ("28P01", None));
}

#[test]
fn vectors_are_those_that_were_asked_for() {
    let numbers = |n: usize| format!("[{}]", vec!["1"; n].join(","));
    let one = |vector: &str| format!("{{\"data\":[{{\"index\":0,\"embedding\":{vector}}}]}}");
    for (body, dimensions) in [
        (one(&numbers(9)), Some(8)),
        (one(&numbers(7)), Some(8)),
        (one(&numbers(1_000_000)), Some(8)),
        (one(&numbers(2_000_000)), None),
        (one("[1e999]"), Some(1)),
        (one("[null]"), Some(1)),
        (one("[\"1\"]"), Some(1)),
        (one("[true]"), Some(1)),
        (one(&format!("{}{}", "[".repeat(20_000), "]".repeat(20_000))), None),
        ("{\"data\":[{\"index\":-1,\"embedding\":[1]}]}".to_owned(), None),
        ("{\"data\":[{\"index\":18446744073709551615,\"embedding\":[1]}]}".to_owned(), None),
        ("{\"data\":[{\"index\":1,\"embedding\":[1]}]}".to_owned(), None),
        ("{\"data\":[{\"embedding\":[1]}]}".to_owned(), None),
        (format!("{{\"x\":{}1{},\"data\":[]}}", "[".repeat(20_000), "]".repeat(20_000)), None),
    ] {
        let server = answering(answer("200 OK", "", body.as_bytes()));
        let outcome = ask(&server, embed(dimensions), &["a"], &[]);
        let short: String = body.chars().take(80).collect();
        let is_refused = matches!(outcome.answers.as_slice(), [Some(Err(_))]);
        assert!(outcome.error.is_some() || is_refused, "{short}: {:?}", outcome.answers);
    }
}

#[test]
fn counts_of_tokens_that_cannot_be_are_not_believed() {
    for count in ["18446744073709551615", "9223372036854775807", "1000000000000"] {
        let body = format!(
            "{{\"choices\":[{{\"message\":{{\"content\":\"x\"}}}}],\
             \"usage\":{{\"prompt_tokens\":{count},\"completion_tokens\":{count}}}}}"
        );
        let server = answering(answer("200 OK", "", body.as_bytes()));
        let limits = [("price_per_million_output_tokens", "1"), ("concurrency", "1")];
        let outcome = ask(&server, generate(), &["a", "b"], &limits);
        assert_eq!(outcome.error, None);
        assert_eq!(
            outcome.answers,
            [const { None }; 2].map(|_: Option<()>| { Some(Ok(Answer::Text("x".to_owned()))) })
        );
        assert!(outcome.usage.tokens_in < 10_000_000, "{:?}", outcome.usage);
        assert!(outcome.usage.cost < 10.0, "{:?}", outcome.usage);
    }
}

#[test]
fn an_answer_of_a_service_is_json_that_can_be_kept() {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    for body in [deep.as_bytes(), b"\"\xff\"", b"", b"{\"a\":", b"\0"] {
        let server = answering(answer("200 OK", "", body));
        let task = Task::Post { url: format!("{}/x", url(&server)) };
        let error = ask(&server, task, &["1"], &[]).error.expect("an error");
        assert_eq!(error.sqlstate, "08P01", "{error:?}");
    }
}

/// Nothing is unpacked: a few kilobytes could become gigabytes.
#[test]
fn a_compressed_answer_stays_as_it_is() {
    for coding in ["gzip", "br", "deflate", "zstd"] {
        let header = format!("content-encoding: {coding}\r\n");
        let server = answering(answer("200 OK", &header, b"\x1f\x8b\x08\0\0\0\0\0"));
        let error = ask(&server, embed(None), &["a"], &[]).error.expect("an error");
        assert_eq!(error.sqlstate, "08P01", "{error:?}");
    }
}

#[test]
fn what_a_server_says_shows_no_secret() {
    for status in ["400 No", "401 No", "403 No", "404 No", "409 No", "413 No", "429 No", "500 No"] {
        for form in forms() {
            let text = format!("no {form} \0 {}", "x".repeat(20_000));
            let body = serde_json::json!({ "error": { "message": text }, "message": text });
            let server = answering(answer(status, "", body.to_string().as_bytes()));
            match post(&server, &[]) {
                Err(error) => shows_no_secret(&error),
                Ok(rejected) => {
                    let [rejected] = rejected.as_slice() else { panic!("{rejected:?}") };
                    assert!(rejected.message.contains("***"), "{rejected:?}");
                    shows_no_secret(&DeliveryError::server(
                        &rejected.sqlstate,
                        rejected.message.as_str(),
                    ));
                }
            }
            let task = Task::Post { url: format!("{}/x", url(&server)) };
            let outcome = ask(&server, task, &["1"], &[]);
            if let Some(error) = &outcome.error {
                shows_no_secret(error);
            }
            for refusal in outcome.answers.into_iter().flatten().filter_map(Result::err) {
                shows_no_secret(&DeliveryError::server(&refusal.sqlstate, refusal.message));
            }
        }
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let other = answering(answer("200 OK", "", b"{}"));
    for status in ["301 Moved", "302 Found", "303 See", "307 Moved", "308 Moved"] {
        let header = format!("location: {}/x\r\nretry-after: 1\r\n", url(&other));
        let server = answering(answer(status, &header, b""));
        assert_eq!(post(&server, &[]).expect_err("an error").sqlstate, "08P01");
        let outcome = ask(&server, embed(None), &["a"], &[]);
        assert_eq!(outcome.error.expect("an error").sqlstate, "08P01");
        let task = Task::Post { url: format!("{}/x", url(&server)) };
        assert!(ask(&server, task, &["1"], &[]).error.is_some());
    }
    assert_eq!(other.connections(), 0);
}

#[test]
fn a_server_cannot_ask_for_years_of_patience() {
    for wait in ["18446744073709551615", "99999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"]
    {
        let header = format!("retry-after: {wait}\r\n");
        let server = answering(answer("503 Busy", &header, b""));
        let error = post(&server, &[]).expect_err("an error");
        assert_eq!(error.retry_after.map(|wait| wait.as_secs()), Some(3600), "{wait}");
    }
}

#[test]
fn a_server_that_does_not_come_to_an_end_is_not_waited_for_long() {
    let scripts: [fn(&mut TcpStream) -> std::io::Result<()>; 4] = [
        wait_for_end,
        // Headers, and bodies, a byte at a time.
        |stream| {
            take(stream)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\nx: ")?;
            loop {
                stream.write_all(b"x")?;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        },
        |stream| {
            take(stream)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            loop {
                stream.write_all(b" ")?;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        },
        // Headers without end.
        |stream| {
            take(stream)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            send_for_ever(stream, b"x: y\r\n")
        },
    ];
    for script in scripts {
        let server = Hostile::start(script);
        let error = post(&server, &[("request_timeout", "1")]).expect_err("an error");
        assert_eq!(error.sqlstate, "08006", "{error:?}");
    }
}

/// A row's URL, whatever it is, leads to no other place than the server's.
#[test]
fn a_path_does_not_lead_out() {
    let base = "http://127.0.0.1:1/v1";
    for path in [
        "..",
        "../admin",
        "..;/admin",
        "..;x=1/admin",
        "%2e%2e/admin",
        "%2E./admin",
        "%252e%252e/admin",
        "%25252e%25252e/admin",
        "..%2fadmin",
        "..%252fadmin",
        "..%5cadmin",
        "..\\admin",
        "%c0%ae%c0%ae/admin",
        ".%09./admin",
        ".\t./admin",
        "..%00/admin",
        "%uff0e%uff0e/admin",
        "．．/admin",
        "a/./b",
        "a%0d%0aHost: x",
    ] {
        for url in [format!("{base}/{path}"), format!("{base}/a/{path}?b=c#d")] {
            let found = providers::longest_matching_prefix([base].into_iter(), &url);
            assert!(matches!(found, Err(_) | Ok(None)), "{url}: {found:?}");
        }
    }
    assert_eq!(
        providers::longest_matching_prefix([base].into_iter(), &format!("{base}/a.b/c..d")),
        Ok(Some(0))
    );
}

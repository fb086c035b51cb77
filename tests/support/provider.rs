//! A provider of functions over the network: it embeds, generates and answers in the ways of
//! OpenAI's protocol, counts what it is asked, and can misbehave in the ways that servers do.
//!
//! Its vectors are made of a hash of the text: fast, and the same each time. The real model is
//! scripts/servers/embeddings.sh.
#![allow(dead_code)] // each file of tests uses a part

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::{Request, is_signed, read_head, write_answer};

/// A server on a free port of this machine; it stops when dropped.
pub struct Provider {
    port: u16,
    shared: Arc<Mutex<State>>,
    acceptor: Option<JoinHandle<()>>,
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: String,
    },
    /// There is no answer, for as long as the other side waits for one.
    Hang,
    /// One vector too few.
    WrongCount,
    /// Vectors of three numbers.
    WrongDimension,
    /// The answer breaks off, and says that it is all.
    InvalidJson,
    /// The connection ends in the middle of the answer.
    Cut,
    /// What is no JSON number.
    Nan,
    /// The last vector has null for a number.
    Null,
    /// A chat is answered with this choice.
    Choice(Value),
}

impl Fault {
    pub fn status(status: u16, body: &str) -> Fault {
        Fault::Answer { status, headers: vec![], body: body.to_owned() }
    }

    pub fn retry_after(status: u16, name: &str, value: &str) -> Fault {
        let headers = vec![(name.to_owned(), value.to_owned())];
        Fault::Answer { status, headers, body: String::new() }
    }
}

/// What it was asked since it was started, or since [`Provider::forget`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: usize,
    /// Texts and prompts, as often as they came.
    pub inputs: usize,
    pub distinct: usize,
}

#[derive(Default)]
struct State {
    stopped: bool,
    open: Vec<TcpStream>,
    requests: Vec<(Instant, Request)>,
    inputs: usize,
    distinct: BTreeSet<String>,
    faults: VecDeque<Option<Fault>>,
    always: Option<Fault>,
    delay: Duration,
    key: Option<String>,
    secret: Option<String>,
    refused: Option<String>,
    dimensions: usize,
    busy: usize,
    busiest: usize,
    /// Requests that were hung, and given up by the other side.
    given_up: usize,
    /// It says how many tokens a request had.
    usage: bool,
}

impl Provider {
    pub fn start() -> Provider {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = State { dimensions: 8, usage: true, ..State::default() };
        let shared = Arc::new(Mutex::new(state));
        let of_acceptor = shared.clone();
        let acceptor = thread::spawn(move || accept(&listener, &of_acceptor));
        Provider { port, shared, acceptor: Some(acceptor) }
    }

    /// What a server's option url is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    pub fn counts(&self) -> Counts {
        let state = self.state();
        Counts {
            requests: state.requests.len(),
            inputs: state.inputs,
            distinct: state.distinct.len(),
        }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.iter().map(|(_, request)| request.clone()).collect()
    }

    /// When requests came in, after the first.
    pub fn times(&self) -> Vec<Duration> {
        let state = self.state();
        let first = state.requests.first().map(|(at, _)| *at);
        state.requests.iter().filter_map(|(at, _)| Some(at.duration_since(first?))).collect()
    }

    pub fn forget(&self) {
        let mut state = self.state();
        state.requests.clear();
        state.distinct.clear();
        (state.inputs, state.busiest, state.given_up) = (0, 0, 0);
    }

    /// Does this to one of the next requests; faults that are given one by one wait in a queue.
    pub fn next(&self, fault: Fault) {
        self.after(0, fault);
    }

    /// Does this after so many requests that are answered as they should be.
    pub fn after(&self, requests: usize, fault: Fault) {
        let mut state = self.state();
        state.faults.extend(std::iter::repeat_n(None, requests));
        state.faults.push_back(Some(fault));
    }

    /// Does this to all requests, or nothing any more.
    pub fn always(&self, fault: Option<Fault>) {
        self.state().always = fault;
    }

    /// Each answer takes so long, but for those that are told to be errors.
    pub fn delay(&self, time: Duration) {
        self.state().delay = time;
    }

    /// Answers 401 without this key.
    pub fn want_key(&self, key: &str) {
        self.state().key = Some(key.to_owned());
    }

    /// Answers 403 to what is not signed with this secret.
    pub fn want_signature(&self, secret: &str) {
        self.state().secret = Some(secret.to_owned());
    }

    /// Answers 400 to requests with an input that has this text in it.
    pub fn refuse(&self, text: &str) {
        self.state().refused = Some(text.to_owned());
    }

    /// Of its vectors, where none are asked for.
    pub fn dimensions(&self, dimensions: usize) {
        self.state().dimensions = dimensions;
    }

    /// Does not say how many tokens a request had.
    pub fn say_no_usage(&self) {
        self.state().usage = false;
    }

    /// How many requests it has had at once, at most.
    pub fn busiest(&self) -> usize {
        self.state().busiest
    }

    /// How many requests that were hung were given up.
    pub fn given_up(&self) -> usize {
        self.state().given_up
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let mut state = self.state();
        state.stopped = true;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        // Wakes the acceptor, which then sees that it is to stop.
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, self.port).into();
        drop(TcpStream::connect(address));
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().ok();
        }
    }
}

/// The vector of a text: of numbers that are written without loss.
pub fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let numbers = (0..dimensions).map(|_| {
        hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((hash >> 48) as i16) as f32 / 32768.0
    });
    numbers.collect()
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A test that panics while it looks at it has nothing half done.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Mutex<State>>) {
    for (number, stream) in listener.incoming().enumerate() {
        let Ok(stream) = stream else { continue };
        let Ok(copy) = stream.try_clone() else { continue };
        {
            let mut state = lock(shared);
            if state.stopped {
                return;
            }
            state.open.push(copy);
        }
        let shared = shared.clone();
        thread::spawn(move || {
            let ended = stream.try_clone();
            // An error is the end of the connection, from either side.
            let _ = serve(stream, number + 1, &shared);
            // The copy that is kept to stop it would keep it open.
            if let Ok(stream) = ended {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }
}

/// Answers the requests of a connection.
fn serve(stream: TcpStream, number: usize, shared: &Mutex<State>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some((mut request, length)) = read_head(&mut stream, number)? {
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        request.body = String::from_utf8(body).map_err(io::Error::other)?;
        let (fault, delay) = {
            let mut state = lock(shared);
            state.requests.push((Instant::now(), request.clone()));
            state.busy += 1;
            state.busiest = state.busiest.max(state.busy);
            (state.faults.pop_front().flatten().or_else(|| state.always.clone()), state.delay)
        };
        if !matches!(fault, Some(Fault::Answer { .. })) {
            thread::sleep(delay);
        }
        let (status, headers, body) = match &fault {
            Some(Fault::Answer { status, headers, body }) => {
                (*status, headers.clone(), body.clone())
            }
            fault => {
                let (status, body) = lock(shared).answer(&request, fault.as_ref());
                (status, vec![], body)
            }
        };
        lock(shared).busy -= 1;
        match fault {
            Some(Fault::Hang) => {
                // Until the other side goes away.
                let end = stream.read(&mut [0])?;
                let mut state = lock(shared);
                state.given_up += usize::from(end == 0 && !state.stopped);
                return Ok(());
            }
            Some(Fault::Cut) => return write_answer(stream.get_mut(), status, &[], &body, 5),
            Some(Fault::InvalidJson) => {
                let half = &body[..body.len() / 2];
                write_answer(stream.get_mut(), status, &headers, half, 0)?;
            }
            _ => write_answer(stream.get_mut(), status, &headers, &body, 0)?,
        }
        stream.get_mut().flush()?;
    }
    Ok(())
}

impl State {
    fn answer(&mut self, request: &Request, fault: Option<&Fault>) -> (u16, String) {
        let error = |status, message: &str| {
            (
                status,
                json!({ "error": { "message": message, "type": "invalid_request_error" } })
                    .to_string(),
            )
        };
        let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
        if let Some(key) = &self.key
            && header("authorization") != format!("Bearer {key}")
        {
            let said = format!("Incorrect API key provided: {}", header("authorization"));
            return error(401, &said);
        }
        if let Some(secret) = &self.secret
            && !is_signed(header("x-coco-signature"), &request.body, secret)
        {
            return error(403, "the signature is wrong");
        }
        let Ok(body) = serde_json::from_str::<Value>(&request.body) else {
            return error(500, "the body is no JSON");
        };
        if request.method != "POST" || header("content-type") != "application/json" {
            return error(500, &format!("the request is wrong: {request:?}"));
        }
        let unknown = || error(404, &format!("The model {} does not exist", body["model"]));
        match request.path.as_str() {
            "/v1/embeddings" | "/v1/chat/completions" if body["model"] == "unknown" => unknown(),
            "/v1/embeddings" => self.embed(&body, fault),
            "/v1/chat/completions" => self.generate(&body, fault),
            // A service says what it was sent, as it was written.
            path => {
                let refused = self.refused.as_ref().is_some_and(|text| request.body.contains(text));
                match refused {
                    true => error(422, "not that one"),
                    false => (200, format!(r#"{{"path":{},"got":{}}}"#, json!(path), request.body)),
                }
            }
        }
    }

    fn take(&mut self, input: &str) -> bool {
        self.inputs += 1;
        self.distinct.insert(input.to_owned());
        self.refused.as_ref().is_none_or(|text| !input.contains(text))
    }

    fn embed(&mut self, body: &Value, fault: Option<&Fault>) -> (u16, String) {
        let inputs: Vec<&str> =
            body["input"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut fine = !inputs.is_empty() && body["encoding_format"] == "float";
        for input in &inputs {
            fine &= self.take(input);
        }
        if !fine {
            let error = json!({ "message": "'$.input' is invalid", "param": "input" });
            return (400, json!({ "error": error }).to_string());
        }
        let dimensions = match (fault, body["dimensions"].as_u64()) {
            (Some(Fault::WrongDimension), _) => 3,
            (_, Some(n)) => n as usize,
            (_, None) => self.dimensions,
        };
        let mut data: Vec<Value> = inputs
            .iter()
            .enumerate()
            .map(|(n, input)| json!({ "index": n, "embedding": vector(input, dimensions) }))
            .collect();
        // In no order that one could rely on.
        data.reverse();
        if let (Some(Fault::Null), Some(last)) = (fault, data.first_mut()) {
            last["embedding"][0] = Value::Null;
        }
        if matches!(fault, Some(Fault::WrongCount)) {
            data.pop();
        }
        let mut answer = json!({ "object": "list", "model": body["model"], "data": data });
        if self.usage {
            let tokens: usize = inputs.iter().map(|input| input.len()).sum();
            answer["usage"] = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
        }
        let mut text = answer.to_string();
        if matches!(fault, Some(Fault::Nan)) {
            text = text.replacen("\"embedding\":[", "\"embedding\":[NaN,", 1);
        }
        (200, text)
    }

    fn generate(&mut self, body: &Value, fault: Option<&Fault>) -> (u16, String) {
        let prompt = body["messages"][0]["content"].as_str().unwrap_or_default();
        if !self.take(prompt) {
            return (400, json!({ "error": { "message": "not that one" } }).to_string());
        }
        let schema = &body["response_format"]["json_schema"]["schema"];
        let content = match schema.is_object() {
            true => instance(schema, prompt).to_string(),
            false => format!("echo: {prompt}"),
        };
        let choice = match fault {
            Some(Fault::Choice(choice)) => choice.clone(),
            _ => json!({ "index": 0, "finish_reason": "stop",
                         "message": { "role": "assistant", "content": content } }),
        };
        let mut answer = json!({ "object": "chat.completion", "choices": [choice] });
        if self.usage {
            answer["usage"] =
                json!({ "prompt_tokens": prompt.len(), "completion_tokens": content.len() });
        }
        (200, answer.to_string())
    }
}

/// Something that a schema describes, with the prompt for each text.
fn instance(schema: &Value, prompt: &str) -> Value {
    match schema["type"].as_str() {
        Some("object") => {
            let properties = schema["properties"].as_object().into_iter().flatten();
            properties.map(|(name, of)| (name.clone(), instance(of, prompt))).collect()
        }
        Some("array") => json!([instance(&schema["items"], prompt)]),
        Some("string") => json!(prompt),
        Some("integer" | "number") => json!(prompt.len()),
        Some("boolean") => json!(true),
        _ => Value::Null,
    }
}

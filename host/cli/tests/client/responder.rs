//! A server that knows its lines: answers each request with the next recorded answer and notes what was asked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use leasehold_cli::{Environment, FindingSeverity, ModuleRefused, ModuleTools, Outcome, PolicyFinding, run_in};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    #[serde(default)]
    pub(crate) body: String,
    pub(crate) location: Option<String>,
    /// JSON, unless something else is said.
    #[serde(default)]
    pub(crate) content_type: Option<String>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl ToString) -> Self {
        Self { status, body: body.to_string(), location: None, content_type: None }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Responder {
    pub(crate) address: String,
    socket: SocketAddr,
    asked: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    pub(crate) fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = listener.local_addr().unwrap();
        let (asked, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (noted, stop) = (asked.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let Some(request) = read(&stream) else { continue };
                noted.lock().unwrap().push(request);
                let answer = answers.next().unwrap_or_else(|| Answer::new(500, "the responder has no answer left"));
                write(stream, &answer);
            }
        });
        Self { address: format!("http://{socket}"), socket, asked, over, thread: Some(thread) }
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.socket);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let mut request =
        Request { method: words.next()?.to_owned(), target: words.next()?.to_owned(), ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = request.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    // Only what the API knows; the rest is the library's.
    request.headers.retain(|name, _| name.starts_with("x-") || name == "content-type" || name == "authorization");
    Some(request)
}

fn write(mut stream: TcpStream, answer: &Answer) {
    let location = answer.location.as_deref().map(|location| format!("Location: {location}\r\n")).unwrap_or_default();
    let kind = answer.content_type.as_deref().unwrap_or("application/json");
    let head = format!(
        "HTTP/1.1 {} Answer\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n{location}\r\n",
        answer.status,
        answer.body.len()
    );
    // A 204 has no body and no length.
    let head = if answer.status == 204 { head.replace("Content-Length: 0\r\n", "") } else { head };
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(answer.body.as_bytes()));
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: u8,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

#[derive(Clone, Default)]
struct Kept(Rc<RefCell<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs the client with nothing in its environment but what is given and a home folder.
pub(crate) fn client(home: &Path, variables: &[(&str, &str)], stdin: &str, arguments: &[&str]) -> Ran {
    let (stdout, stderr) = (Kept::default(), Kept::default());
    let mut all: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    all.insert("HOME".to_owned(), home.display().to_string());
    let mut env = Environment {
        variables: all,
        stdin: Box::new(std::io::Cursor::new(stdin.as_bytes().to_vec())),
        stdout: Box::new(stdout.clone()),
        stderr: Box::new(stderr.clone()),
        stdout_is_terminal: false,
        stderr_is_terminal: false,
    };
    let arguments: Vec<OsString> =
        std::iter::once("leasehold").chain(arguments.iter().copied()).map(OsString::from).collect();
    let Outcome::Status(status) = run_in(&mut env, arguments, &ScriptedTools, Vec::new()) else {
        panic!("no own command was given")
    };
    Ran { status, stdout: stdout.text(), stderr: stderr.text() }
}

/// Lets in what begins as a component does, and denies when the configuration says so.
struct ScriptedTools;

impl ModuleTools for ScriptedTools {
    fn inspect(&self, module: &[u8]) -> Result<Value, ModuleRefused> {
        match module.starts_with(b"\0asm") {
            true => Ok(json!({ "digest": "sha256:abc", "size": module.len() })),
            false => Err(ModuleRefused("it is not a WebAssembly component".to_owned())),
        }
    }

    fn check_policy(&self, text: &str) -> Result<Vec<PolicyFinding>, ModuleRefused> {
        if text.contains("bogus") {
            return Err(ModuleRefused("failed to parse policy: invalid capability".to_owned()));
        }
        let (line, column, help) = (1, 6, Some("write it even".to_owned()));
        let finding = |severity, word: &str| PolicyFinding {
            severity,
            code: format!("{word}-rule"),
            line,
            column,
            message: format!("path \"{word}\": stands out"),
            help: help.clone(),
        };
        let all = [finding(FindingSeverity::Warning, "odd"), finding(FindingSeverity::Hint, "plain")];
        Ok(all.into_iter().filter(|one| text.contains(one.code.trim_end_matches("-rule"))).collect())
    }

    fn check(&self, module: &[u8], config: &[u8], request: &Value) -> Result<Value, ModuleRefused> {
        self.inspect(module)?;
        let config: Value = serde_json::from_slice(config).map_err(|error| ModuleRefused(error.to_string()))?;
        let decision = if config["frozen"] == true { "deny" } else { "allow" };
        Ok(json!({ "decision": decision, "messages": [format!("asked about {}", request["path"])] }))
    }
}

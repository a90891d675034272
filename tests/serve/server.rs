//! A server of the example for a test, and requests to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take on a machine that does other work, too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn skipc(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().expect("skipc starts")
}

/// The example, compiled once for all tests.
pub(crate) fn example() -> &'static str {
    static COMPILED: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, path) = COMPILED.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("kjv.skp").display().to_string();
        let (spec, weights) = ("models/kjv-12l-d25.toml", "models/kjv-12l-d25.safetensors");
        let output = skipc(&["compile", "--cpu-levels", "native", spec, "--weights", weights, "-o", &path]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (folder, path)
    });
    path
}

pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    /// Its further lines.
    out: BufReader<std::process::ChildStdout>,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// Of a whole answer, as it was read from a connection.
    pub(crate) fn parse(bytes: &[u8]) -> Reply {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        let body = match head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            true => unchunked(body),
            false => body.to_owned(),
        };
        Reply { status, head: head.to_owned(), body }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The objects of server-sent events; the last has to be `[DONE]`.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        let mut lines: Vec<&str> = self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(lines.pop(), Some("[DONE]"), "{self:?}");
        lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The code of a refusal, which always has a reason.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        let error = &json["error"];
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{self:?}");
        error["code"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

fn unchunked(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        // A connection that is cut has no last chunk.
        body.push_str(after.get(..size).unwrap_or(after));
        rest = after.get(size + 2..).unwrap_or_default();
    }
    body
}

impl Server {
    /// With these options beside a free port; the server's folder has a template for chats that says the messages one
    /// after another.
    pub(crate) fn start(args: &[&str]) -> Server {
        Server::of(example(), args)
    }

    /// The same for this artefact.
    pub(crate) fn of(artefact: &str, args: &[&str]) -> Server {
        let folder = TempDir::new().unwrap();
        let template = folder.path().join("template");
        std::fs::write(&template, "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
        let has_template = args.contains(&"--chat-template");
        let named = ["--chat-template".as_ref(), template.as_os_str()];
        let mut child = Command::new(env!("CARGO_BIN_EXE_skipc"))
            .args(["serve", artefact, "--port", "0", "--json"])
            .args(named.iter().filter(|_| !has_template))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("skipc starts");
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let report: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(report["event"], "listening");
        let address = report["address"].as_str().expect("an address").to_owned();
        Server { child, address, out, folder }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("the server takes connections");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The answer to these bytes, after which the connection has to end.
    pub(crate) fn exchange(&self, request: &[u8]) -> Reply {
        let mut stream = self.connect();
        // A server may refuse before it has read all.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert!(read.is_ok() || !answer.is_empty(), "{read:?}: {}", String::from_utf8_lossy(request));
        Reply::parse(&answer)
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.exchange(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
    }

    pub(crate) fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.exchange(&post(path, "", body.as_ref()))
    }

    /// The answer to a request for a continuation that has to succeed.
    #[track_caller]
    pub(crate) fn complete(&self, body: &Value) -> Reply {
        let reply = self.post("/v1/completions", body.to_string());
        assert_eq!(reply.status, 200, "{reply:?}");
        reply
    }

    /// A request whose answer is read later; the first event has come.
    pub(crate) fn begin(&self, body: &Value) -> BufReader<TcpStream> {
        let mut stream = self.connect();
        stream.write_all(&post("/v1/completions", "", body.to_string().as_bytes())).unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(reader.read_line(&mut line).expect("an answer") > 0, "the answer ends early");
        }
        reader
    }

    /// The sum of a metric's rows.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").body;
        let rows = page.lines().filter(|line| line.starts_with(name));
        let values: Vec<f64> = rows.map(|row| row.rsplit(' ').next().unwrap().parse().unwrap()).collect();
        assert!(!values.is_empty(), "no {name} in {page}");
        values.iter().sum()
    }

    /// Waits until a metric has a value.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str, value: f64) {
        let begun = Instant::now();
        while self.metric(name) != value {
            assert!(begun.elapsed() < PATIENCE, "{name} is {}, not {value}", self.metric(name));
            sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(killed.expect("kill").success());
    }

    /// How it ended, and its last line.
    pub(crate) fn wait(&mut self) -> (ExitStatus, Value) {
        let mut lines = String::new();
        self.out.read_to_string(&mut lines).expect("its output");
        let last = lines.lines().last().expect("a line");
        (self.child.wait().expect("it ends"), serde_json::from_str(last).expect("JSON"))
    }
}

pub(crate) fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

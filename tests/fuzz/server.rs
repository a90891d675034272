//! A server in this process, and requests to it as bytes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use skipc::serve::{EngineSettings, Report, Settings, serve};
use skipc_runtime::decode::LanguageFiles;
use skipc_runtime::{Device, Options};
use skipc_testkit::mutate;
use skipc_testkit::random::Rng;

/// How long a request that is not whole is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

/// A thread of the server panicked, which the server itself would survive.
static PANICKED: AtomicBool = AtomicBool::new(false);

pub(crate) struct Server {
    address: String,
}

/// Serves a model until the process ends.
pub(crate) fn start(model: &Path) -> Server {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICKED.store(true, Ordering::Relaxed);
        say(panic);
    }));
    let (ready, when_ready) = mpsc::channel();
    let settings = Settings {
        engine: EngineSettings {
            files: LanguageFiles { model: model.into(), tokenizer: None, chat_template: None },
            trust: None,
            device: Device::Cpu,
            options: Options { threads: 1, ..Options::default() },
            slots: 4,
            cache_tokens: None,
            layers: vec!["a".into(), "b".into()],
        },
        host: "127.0.0.1".into(),
        port: 0,
        queue: 64,
        timeout: Duration::from_secs(20),
        grace: Duration::from_secs(1),
        api_key_file: None,
    };
    std::thread::spawn(move || {
        let mut report = |report: &Report| {
            if let Report::Listening { address, .. } = report {
                let _ = ready.send(address.clone());
            }
        };
        serve(&settings, &mut report).expect("a server");
    });
    let address = when_ready.recv_timeout(Duration::from_secs(60)).expect("an address");
    Server { address: address.trim_start_matches("http://").to_owned() }
}

impl Server {
    /// Sends bytes and says what came back: the status and the code of an error.
    pub(crate) fn answer(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The server may refuse and go before it has read all.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        loop {
            match stream.read(&mut part) {
                Ok(0) => break,
                Ok(length) => answer.extend_from_slice(&part[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error}"),
            }
            if is_whole(&answer) {
                break;
            }
        }
        assert!(!PANICKED.load(Ordering::Relaxed), "a thread panicked");
        let text = String::from_utf8_lossy(&answer);
        let status = text.split(' ').nth(1).unwrap_or("none");
        assert!(!status.starts_with('5') || status == "503", "{text}");
        let code = text.split("\"code\":").nth(1).and_then(|rest| rest.split('"').nth(1)).unwrap_or("");
        format!("{status} {code}")
    }
}

/// Whether a body of known length is there.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

/// The JSON behind the head changed, with a length that fits.
pub(crate) fn body(rng: &mut Rng, input: &[u8], _: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(input);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return input.to_vec() };
    if serde_json::from_str::<serde_json::Value>(body).is_err() {
        return input.to_vec();
    }
    let changed = mutate::json(rng, body);
    let line = |line: &str| match line.starts_with("content-length") {
        true => format!("content-length: {}", changed.len()),
        false => line.to_owned(),
    };
    let head: Vec<String> = head.split("\r\n").map(line).collect();
    format!("{}\r\n\r\n{changed}", head.join("\r\n")).into_bytes()
}

//! Load for `skipc serve`: how many requests and tokens a second it answers against the number of its slots, and then, for
//! so many minutes, 64 clients of streams of whom half hang up at random, with the memory of the server. Every answer is
//! compared with what one client alone gets, as far as it was read.
//! `cargo run --release --features cuda --example serve-load -- MODEL.skp [MINUTES] [SECONDS]`.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Clients of the soak.
const CLIENTS: u64 = 64;

/// Clients of the table: as many as its widest server has slots.
const CLIENTS_OF_TABLE: u64 = 32;

/// New tokens of a request.
const NEW_TOKENS: u64 = 64;

struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(model: &str, slots: u32) -> Result<Server, Box<dyn Error>> {
        let skipc = std::env::current_exe()?.with_file_name("../skipc");
        let mut child = Command::new(skipc)
            .args(["serve", model, "--port", "0", "--slots", &slots.to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let address = line.trim().rsplit("http://").next().ok_or("no address")?.to_owned();
        Ok(Server { child, address })
    }

    /// Resident memory now and at its peak, in MiB.
    fn memory(&self) -> Result<(u64, u64), Box<dyn Error>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let of = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse().ok()
        };
        Ok((of("VmRSS:").ok_or("no VmRSS")? >> 10, of("VmHWM:").ok_or("no VmHWM")? >> 10))
    }
}

/// What is asked, and what one client alone is answered.
struct Question {
    body: String,
    answer: String,
}

/// Texts that are continued: as many as are answered differently, so that a text that belongs to another request shows.
fn questions(server: &Server) -> Result<Vec<Question>, Box<dyn Error>> {
    const NAMES: [&str; 16] = [
        "Moses", "Aaron", "David", "Saul", "Jacob", "Esau", "Abraham", "Isaac", "Joseph", "Samuel",
        "Solomon", "Jonathan", "Elijah", "Peter", "Paul", "Jesus",
    ];
    const BEGINNINGS: [&str; 4] =
        ["And it came to pass that", "Now therefore", "Then answered", "In the days of"];
    let mut questions: Vec<Question> = Vec::new();
    for (beginning, name) in BEGINNINGS.iter().flat_map(|beginning| NAMES.map(|name| (beginning, name))) {
        let body = serde_json::json!({
            "prompt": format!("{beginning} {name}"),
            "max_tokens": NEW_TOKENS,
            "stream": true,
            "temperature": 0,
        });
        let body = body.to_string();
        let answer = match stream(&server.address, &body, u64::MAX)? {
            Ended::Complete(answer) if !answer.is_empty() => answer,
            ended => return Err(format!("one client alone: {ended:?}").into()),
        };
        if questions.iter().all(|other| other.answer != answer) {
            questions.push(Question { body, answer });
        }
    }
    match questions.len() {
        0..16 => Err(format!("only {} texts are continued differently", questions.len()).into()),
        _ => Ok(questions),
    }
}

/// What clients have seen.
#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    hung_up: AtomicU64,
    tokens: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
    /// Answers with another text than one client alone gets.
    mixed_up: AtomicU64,
}

/// How a stream ended, with the text that came.
#[derive(Debug)]
enum Ended {
    Complete(String),
    HungUp(String),
    Refused,
    Broken,
}

/// A stream to its end, or only so many pieces of it.
fn stream(address: &str, body: &str, pieces: u64) -> std::io::Result<Ended> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(120)))?;
    let length = body.len();
    write!(
        connection,
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let (mut text, mut n_pieces) = (String::new(), 0);
    for line in BufReader::new(connection).lines() {
        let line = line?;
        if line.starts_with("HTTP/1.1 429") {
            return Ok(Ended::Refused);
        }
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if data == "[DONE]" {
            return Ok(Ended::Complete(text));
        }
        let Ok(piece) = serde_json::from_str::<Value>(data) else { return Ok(Ended::Broken) };
        let choice = &piece["choices"][0];
        text += choice["text"].as_str().unwrap_or_default();
        // The last piece has the reason of the end and no token.
        n_pieces += u64::from(choice["finish_reason"].is_null());
        if n_pieces >= pieces {
            return Ok(Ended::HungUp(text));
        }
    }
    Ok(Ended::Broken)
}

impl Seen {
    /// Takes how the answer to a question ended.
    fn take(&self, question: &Question, ended: &Ended) {
        let (counter, text) = match ended {
            Ended::Complete(text) => (&self.requests, Some(text)),
            Ended::HungUp(text) => (&self.hung_up, Some(text)),
            Ended::Refused => (&self.refused, None),
            Ended::Broken => (&self.broken, None),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let is_same = |text: &String| match ended {
            Ended::Complete(_) => *text == question.answer,
            _ => question.answer.starts_with(text.as_str()),
        };
        if text.is_some_and(|text| !is_same(text)) {
            self.mixed_up.fetch_add(1, Ordering::Relaxed);
        }
        // Bytes are tokens.
        self.tokens.fetch_add(text.map_or(0, |text| text.len() as u64), Ordering::Relaxed);
    }
}

/// Clients that ask one question after the other, until the time is up; `patience` says after how many pieces a client goes, by its
/// number and that of its request. `each` runs once a second meanwhile.
fn load(
    (server, questions): (&Server, &[Question]),
    (clients, time): (u64, Duration),
    patience: impl Fn(u64, u64) -> u64 + Sync,
    mut each: impl FnMut(&Seen, Duration) -> Result<(), Box<dyn Error>>,
) -> Result<Seen, Box<dyn Error>> {
    let (seen, is_over) = (Seen::default(), AtomicBool::new(false));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (seen, is_over, patience) = (&seen, &is_over, &patience);
            scope.spawn(move || {
                for request in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let which = random(request, client) as usize % questions.len();
                    let question = &questions[which];
                    let ended = stream(&server.address, &question.body, patience(client, request));
                    seen.take(question, &ended.unwrap_or(Ended::Broken));
                }
            });
        }
        let mut watched = Ok(());
        while begun.elapsed() < time && watched.is_ok() {
            sleep(Duration::from_secs(1));
            watched = each(&seen, begun.elapsed());
        }
        is_over.store(true, Ordering::Relaxed);
        watched
    })?;
    Ok(seen)
}

/// SplitMix64.
fn random(client: u64, request: u64) -> u64 {
    let z = (client << 32 | request).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Fails where a server did something else than it was asked.
fn check(seen: &Seen) -> Result<(), Box<dyn Error>> {
    let [broken, mixed_up] = [&seen.broken, &seen.mixed_up].map(|count| count.load(Ordering::Relaxed));
    match (broken, mixed_up) {
        (0, 0) => Ok(()),
        _ => Err(format!(
            "{broken} answers ended early, {mixed_up} have another text than one client alone gets"
        )
        .into()),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let model = args.first().ok_or("which artefact?")?;
    let minutes: u64 = args.get(1).map_or(Ok(10), |minutes| minutes.parse())?;
    let seconds: u64 = args.get(2).map_or(Ok(10), |seconds| seconds.parse())?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let questions = questions(&Server::start(model, 1)?)?;

    println!(
        "{CLIENTS_OF_TABLE} clients, {NEW_TOKENS} new tokens a request, {} texts, {seconds} seconds each",
        questions.len()
    );
    println!("slots  requests a second  tokens a second  mixed up");
    for slots in [1, 2, 4, 8, 16, 32] {
        let server = Server::start(model, slots)?;
        let begun = Instant::now();
        let load_of = (CLIENTS_OF_TABLE, Duration::from_secs(seconds));
        let seen = load((&server, &questions), load_of, |_, _| u64::MAX, |_, _| Ok(()))?;
        let elapsed = begun.elapsed().as_secs_f64();
        let (requests, tokens) = (count(&seen.requests) as f64, count(&seen.tokens) as f64);
        let mixed_up = count(&seen.mixed_up);
        println!("{slots:5} {:18.1} {:16.0} {mixed_up:9}", requests / elapsed, tokens / elapsed);
        check(&seen)?;
    }

    println!("\n{CLIENTS} clients for {minutes} minutes, of whom half hang up at random; 32 slots");
    println!("minute  resident MiB  peak MiB  complete  hung up  refused  broken  mixed up");
    let server = Server::start(model, 32)?;
    let mut shown = 0;
    let show = |seen: &Seen, elapsed: Duration| {
        let minute = elapsed.as_secs() / 60;
        if minute >= shown {
            shown = minute + 1;
            let (now, peak) = server.memory()?;
            let [complete, hung_up, refused, broken, mixed_up] =
                [&seen.requests, &seen.hung_up, &seen.refused, &seen.broken, &seen.mixed_up].map(count);
            println!(
                "{minute:6} {now:13} {peak:9} {complete:9} {hung_up:8} {refused:8} {broken:7} {mixed_up:9}"
            );
        }
        Ok(())
    };
    let patience = |client: u64, request: u64| match client % 2 {
        0 => u64::MAX,
        _ => 1 + random(client, request) % NEW_TOKENS,
    };
    let load_of = (CLIENTS, Duration::from_secs(60 * minutes));
    check(&load((&server, &questions), load_of, patience, show)?)
}

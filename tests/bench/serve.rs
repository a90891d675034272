//! Load for `skipc serve`: how many requests and tokens a second it answers against the number of its slots, and then, for
//! so many minutes, 64 clients of streams of whom half hang up at random, with the memory of the server.
//! `cargo run --release --features cuda --example serve-load -- MODEL.skp [MINUTES] [SECONDS]`.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

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

/// What clients have seen.
#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    hung_up: AtomicU64,
    tokens: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

/// A stream to its end, or only so many pieces of it. Whether it ended as it should.
fn stream(address: &str, prompt: u64, pieces: u64, seen: &Seen) -> std::io::Result<bool> {
    let body = format!(
        "{{\"prompt\": \"{prompt} And it came to pass\", \"max_tokens\": {NEW_TOKENS}, \"stream\": true, \"seed\": {prompt}}}"
    );
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(120)))?;
    let length = body.len();
    write!(
        connection,
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut n_pieces = 0;
    for line in BufReader::new(connection).lines() {
        let line = line?;
        if line.starts_with("HTTP/1.1 429") {
            seen.refused.fetch_add(1, Ordering::Relaxed);
            return Ok(true);
        }
        if line.starts_with("data: [DONE]") {
            seen.requests.fetch_add(1, Ordering::Relaxed);
            return Ok(true);
        }
        // The last piece has the reason of the end and no token.
        if line.starts_with("data: {") && line.contains("\"finish_reason\":null") {
            n_pieces += 1;
            seen.tokens.fetch_add(1, Ordering::Relaxed);
        }
        if n_pieces >= pieces {
            seen.hung_up.fetch_add(1, Ordering::Relaxed);
            return Ok(true);
        }
    }
    Ok(false)
}

/// Clients that ask again and again, until the time is up; `patience` says after how many pieces a client goes, by its
/// number and that of its request. `each` runs once a second meanwhile.
fn load(
    (server, clients, time): (&Server, u64, Duration),
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
                    let prompt = client * 1_000_000 + request;
                    let ended = stream(&server.address, prompt, patience(client, request), seen);
                    if !ended.unwrap_or(false) {
                        seen.broken.fetch_add(1, Ordering::Relaxed);
                    }
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

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let model = args.first().ok_or("which artefact?")?;
    let minutes: u64 = args.get(1).map_or(Ok(10), |minutes| minutes.parse())?;
    let seconds: u64 = args.get(2).map_or(Ok(10), |seconds| seconds.parse())?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);

    println!("{CLIENTS_OF_TABLE} clients, {NEW_TOKENS} new tokens a request, {seconds} seconds each");
    println!("slots  requests a second  tokens a second");
    for slots in [1, 2, 4, 8, 16, 32] {
        let server = Server::start(model, slots)?;
        let begun = Instant::now();
        let time = Duration::from_secs(seconds);
        let seen = load((&server, CLIENTS_OF_TABLE, time), |_, _| u64::MAX, |_, _| Ok(()))?;
        let elapsed = begun.elapsed().as_secs_f64();
        let (requests, tokens) = (count(&seen.requests) as f64, count(&seen.tokens) as f64);
        println!("{slots:5} {:18.1} {:16.0}", requests / elapsed, tokens / elapsed);
    }

    println!("\n{CLIENTS} clients for {minutes} minutes, of whom half hang up at random; 32 slots");
    println!("minute  resident MiB  peak MiB  complete  hung up  refused  broken");
    let server = Server::start(model, 32)?;
    let mut shown = 0;
    let show = |seen: &Seen, elapsed: Duration| {
        let minute = elapsed.as_secs() / 60;
        if minute >= shown {
            shown = minute + 1;
            let (now, peak) = server.memory()?;
            let [complete, hung_up, refused, broken] =
                [&seen.requests, &seen.hung_up, &seen.refused, &seen.broken].map(count);
            println!("{minute:6} {now:13} {peak:9} {complete:9} {hung_up:8} {refused:8} {broken:7}");
        }
        Ok(())
    };
    let patience = |client: u64, request: u64| match client % 2 {
        0 => u64::MAX,
        _ => 1 + random(client, request) % NEW_TOKENS,
    };
    let seen = load((&server, CLIENTS, Duration::from_secs(60 * minutes)), patience, show)?;
    match count(&seen.broken) {
        0 => Ok(()),
        broken => Err(format!("{broken} answers ended early").into()),
    }
}

//! Connections: HTTP/1.1 with bounded headers and times. What is no HTTP gets a reason, too.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

use super::refusal::Refusal;

/// Most bytes of the headers of a request; libraries send less than 2 KiB.
const HEADER_BYTES: usize = 32 << 10;

/// Most headers of a request.
const HEADERS: usize = 100;

/// Most connections at a time; more wait until one is closed. Each takes a file of the process, of which it commonly has
/// 1024.
const CONNECTIONS: usize = 900;

/// How long to wait after a connection could not be accepted, for want of files or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes connections until `stop` is ready, then ends those that are idle and waits a little for the others. Headers come
/// within `read_time`, and a client reads something of its answer in each `write_time`.
pub(super) async fn accept(
    listener: TcpListener,
    router: Router,
    (read_time, write_time): (Duration, Duration),
    stop: impl Future<Output = ()>,
) {
    let mut stop = std::pin::pin!(stop);
    let open = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = open.clone().acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, stream) = tokio::select! {
            () = &mut stop => break,
            (permit, accepted) = next => match accepted {
                Ok((stream, _)) => (permit, stream),
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
        };
        // Tokens are small, and wanted at once; a connection without this is slower only.
        let _ = stream.set_nodelay(true);
        let socket = Socket::new(stream, write_time);
        let shared = socket.shared.clone();
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(read_time)
            .max_headers(HEADERS)
            .max_buf_size(HEADER_BYTES)
            .serve_connection(TokioIo::new(socket), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let ended = connection.await;
            if ended.is_err_and(|error| error.is_timeout()) {
                shared.refuse_slow(read_time);
            }
            drop(permit);
        });
    }
    drop(listener);
    // What is written by now arrives.
    let _ = tokio::time::timeout(Duration::from_secs(2), graceful.shutdown()).await;
}

/// What stays of a connection after hyper has ended it.
struct Shared {
    stream: Mutex<TcpStream>,
    /// Whether something was read since the last answer.
    has_begun: AtomicBool,
}

/// A connection that fills in the reason where hyper answers without one: it refuses what is no HTTP by a bare status. It
/// breaks where its client does not read.
struct Socket {
    shared: Arc<Shared>,
    /// What is still to be written of an answer that was filled in.
    rest: Vec<u8>,
    write_time: Duration,
    /// Since nothing can be written: until when that may last.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Shared {
    fn stream(&self) -> MutexGuard<'_, TcpStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request whose headers do not come; a connection on which none began is just closed.
    fn refuse_slow(&self, read_time: Duration) {
        if self.has_begun.load(Ordering::Relaxed) {
            let message = format!("the headers did not come within {} seconds", read_time.as_secs());
            let refusal = Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", message);
            // Who does not read it does without.
            let _ = self.stream().try_write(&answer("408 Request Timeout", &refusal));
        }
    }
}

impl Socket {
    fn new(stream: TcpStream, write_time: Duration) -> Socket {
        let shared = Shared { stream: Mutex::new(stream), has_begun: AtomicBool::new(false) };
        Socket { shared: Arc::new(shared), rest: Vec::new(), write_time, stalled: None }
    }

    /// Writes some of these bytes, if the client reads in time.
    fn poll_bytes(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.shared.stream()).poll_write(cx, bytes);
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let until = || Box::pin(tokio::time::sleep(self.write_time));
        ready!(self.stalled.get_or_insert_with(until).as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            let written = self.poll_bytes(cx, &rest);
            self.rest = rest;
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.rest.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// An answer as HTTP, after which the connection is closed.
fn answer(status: &str, refusal: &Refusal) -> Vec<u8> {
    let body = refusal.json().to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

fn headers_too_large() -> Refusal {
    let message = format!("a request has at most {HEADERS} headers of {HEADER_BYTES} bytes in all");
    Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", message)
}

/// Refuses headers that are too long: hyper looks at their length only while they are not complete, so that some come
/// through by the luck of how they arrive.
pub(super) fn check_headers(headers: &HeaderMap) -> Result<(), Refusal> {
    let length: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if length > HEADER_BYTES { Err(headers_too_large()) } else { Ok(()) }
}

/// The answer to send instead of one that hyper gave a request which it could not read. Ours have a body.
fn filled_in(head: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(head).ok()?;
    let status = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("HTTP/1.0 "))?.lines().next()?;
    let is_bare =
        text.to_ascii_lowercase().contains("\r\ncontent-length: 0\r\n") && text.ends_with("\r\n\r\n");
    if !is_bare || !status.starts_with('4') {
        return None;
    }
    let (number, _) = status.split_once(' ').unwrap_or((status, ""));
    let number = StatusCode::from_bytes(number.as_bytes()).ok()?;
    let refusal = match number {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => headers_too_large(),
        StatusCode::URI_TOO_LONG => {
            Refusal::new(number, "path_too_long", "the path of the request is too long")
        }
        number => Refusal::new(number, "invalid_http", "this is not a request of HTTP/1.1"),
    };
    Some(answer(status, &refusal))
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut *self.shared.stream()).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.shared.has_begun.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_rest(cx))?;
        self.shared.has_begun.store(false, Ordering::Relaxed);
        match filled_in(bytes) {
            Some(answer) => {
                self.rest = answer;
                Poll::Ready(Ok(bytes.len()))
            }
            None => self.poll_bytes(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        Pin::new(&mut *self.shared.stream()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_rest(cx))?;
        Pin::new(&mut *self.shared.stream()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_is_left() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = Socket::new(listener.accept().await.unwrap().0, Duration::from_millis(50));
        let mut write = async || poll_fn(|cx| Pin::new(&mut socket).poll_write(cx, &[b'x'; 4096])).await;
        let error = loop {
            if let Err(error) = write().await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }

    #[test]
    fn bare_refusals_get_a_reason() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: now\r\n\r\n";
        let text = String::from_utf8(filled_in(bare.as_bytes()).unwrap()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], "headers_too_large");
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            "data: HTTP/1.1 400 x\r\ncontent-length: 0\r\n\r\n",
        ] {
            assert_eq!(filled_in(other.as_bytes()), None, "{other}");
        }
    }
}

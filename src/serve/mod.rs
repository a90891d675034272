//! `skipc serve`: a model behind the OpenAI API.
//!
//! A thread of its own owns the model and steps the [engine](skipc_runtime::decode::Engine); [`engine`] passes requests to
//! it and events back. Connections are tasks of tokio: [`connection`] reads HTTP, the routes here check who asks and how
//! much, [`params`] what for, and [`answer`] writes what comes. A client that goes away drops its answer, and with it the
//! events' receiver, which the engine finds before its next step.

mod answer;
mod connection;
mod engine;
mod fields;
mod metrics;
mod params;
mod refusal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::json;
use skipc_artifact::regular;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};

use crate::diagnostic::Diagnostic;
use crate::error::{Error, ErrorKind};
use answer::{Answer, ChoiceProgress, json_response};
use engine::{Choice, Engine, Served, Started};
use params::{Kind, Params};
use refusal::Refusal;

pub use engine::EngineSettings;

/// Most bytes of a request's body.
const BODY_BYTES: usize = 4 << 20;

/// Bytes of a file of keys at most.
const KEYS_BYTES: u64 = 1 << 20;

/// How many times more of a body that is too long is read, so that its sender gets to the answer.
const DRAIN_FACTOR: usize = 16;

/// How long headers, and then the body, of a request may take.
const READ_TIME: Duration = Duration::from_secs(30);

/// What is served where, and within which bounds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The model and its engine.
    pub engine: EngineSettings,
    /// Name or address to listen at.
    pub host: String,
    /// 0 takes a free one.
    pub port: u16,
    /// How many continuations may wait for a slot.
    pub queue: u32,
    /// How long a request may take.
    pub timeout: Duration,
    /// How long what runs may take once the server is to stop.
    pub grace: Duration,
    /// Keys, one a line, of which every request but for `/health` needs one.
    pub api_key_file: Option<PathBuf>,
}

/// What the server tells while it runs.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Report {
    /// It takes requests.
    Listening {
        /// With the port that it got.
        address: String,
        /// The model's name.
        model: String,
        /// What it runs on.
        device: String,
    },
    /// It answered a request; a stream then begins.
    Answered {
        /// Its method.
        method: String,
        /// Its path.
        path: String,
        /// Of the answer.
        status: u16,
        /// Until the answer began.
        milliseconds: u64,
    },
    /// It takes no more requests and finishes those that it has.
    Stopping,
    /// It ends.
    Stopped {
        /// Continuations that were given up.
        unfinished: u32,
    },
}

/// What all requests share.
struct Server {
    served: Served,
    engine: Engine,
    keys: Vec<blake3::Hash>,
    /// A permit for each continuation that may run or wait.
    permits: Arc<Semaphore>,
    capacity: u32,
    timeout: Duration,
    is_stopping: AtomicBool,
    n_answers: AtomicU64,
    started: u64,
    reports: UnboundedSender<Report>,
}

/// Serves until SIGTERM or SIGINT, and then until what runs is finished or its time is up.
///
/// # Errors
///
/// A model that cannot be loaded or generate, keys that cannot be read, an address that cannot be listened at, or a fault
/// of the engine while it serves.
pub fn serve(settings: &Settings, report: &mut dyn FnMut(&Report)) -> Result<(), Error> {
    let keys = settings.api_key_file.as_deref().map(read_keys).transpose()?.unwrap_or_default();
    let started = engine::start(&settings.engine).map_err(engine_error)?;
    let failed = |error: std::io::Error| Error::internal("serve::engine", &error);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("serve")
        .enable_all()
        .build()
        .map_err(failed)?;
    let served = runtime.block_on(run(settings, keys, started, report));
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

/// The error of the engine's thread; none after a panic.
fn engine_error(error: Option<skipc_runtime::Error>) -> Error {
    match error {
        Some(error) => error.into(),
        None => Error::internal("serve::engine", &"the thread of the engine has ended by a panic"),
    }
}

/// The hashes of the keys in a file, so that they are compared in a time that says nothing.
fn read_keys(path: &Path) -> Result<Vec<blake3::Hash>, Error> {
    let text = regular::read_text(path, KEYS_BYTES).map_err(|error| Error::io(path, &error))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Vec<_> = lines.map(|line| blake3::hash(line.as_bytes())).collect();
    match keys.is_empty() {
        true => {
            let problem = format!("{} has no key, so that nobody could ask anything", path.display());
            Err(Diagnostic::new("serve::api_keys", problem).help("write one key a line").into())
        }
        false => Ok(keys),
    }
}

async fn run(
    settings: &Settings,
    keys: Vec<blake3::Hash>,
    started: Started,
    report: &mut dyn FnMut(&Report),
) -> Result<(), Error> {
    let Started { served, engine, thread, mut ended } = started;
    let Settings { host, port, .. } = settings;
    let wrong_address = |error: std::io::Error| {
        let problem = format!("cannot listen at {host}, port {port}: {error}");
        Error::new(ErrorKind::Request, Diagnostic::new("serve::address", problem))
    };
    let listener = TcpListener::bind((host.as_str(), *port)).await.map_err(wrong_address)?;
    let address = listener.local_addr().map_err(wrong_address)?.to_string();
    let signals = |kind| signal(kind).map_err(|error| Error::internal("serve::engine", &error));
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let capacity = served.limits.slots.saturating_add(settings.queue);
    let (reports, mut received) = unbounded_channel();
    report(&Report::Listening { address, model: served.name.clone(), device: served.device.clone() });
    let server = Arc::new(Server {
        served,
        engine: engine.clone(),
        keys,
        permits: Arc::new(Semaphore::new(capacity as usize)),
        capacity,
        timeout: settings.timeout,
        is_stopping: AtomicBool::new(false),
        n_answers: AtomicU64::new(0),
        started: seconds(),
        reports,
    });
    let (stop, stopped) = oneshot::channel::<()>();
    // A sender that is dropped says the same.
    let stopped = async { drop(stopped.await) };
    let read_time = READ_TIME.min(settings.timeout);
    let times = (read_time, settings.timeout);
    let accepting = tokio::spawn(connection::accept(listener, router(&server), times, stopped));

    let (mut give_up, mut idle) = (None, None);
    let result = loop {
        tokio::select! {
            Some(line) = received.recv() => report(&line),
            ended = &mut ended => break match ended {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(engine_error(Some(error))),
                Err(_) => Err(engine_error(None)),
            },
            _ = terminate.recv(), if give_up.is_none() => give_up = Some(begin_stop(&server, report, settings.grace)),
            _ = interrupt.recv(), if give_up.is_none() => give_up = Some(begin_stop(&server, report, settings.grace)),
            // All permits are back when nothing runs.
            all = server.permits.acquire_many(capacity), if give_up.is_some() => {
                idle = all.ok();
                break Ok(());
            }
            () = tokio::time::sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => break Ok(()),
        }
    };
    let unfinished = match idle {
        Some(_) => 0,
        None => capacity - server.permits.available_permits() as u32,
    };
    engine.stop();
    drop(stop);
    // Both end by themselves now; a panic there has been seen by `ended`, or is one of a connection alone.
    let _ = accepting.await;
    let _ = tokio::task::spawn_blocking(|| thread.join()).await;
    while let Ok(line) = received.try_recv() {
        report(&line);
    }
    report(&Report::Stopped { unfinished });
    result
}

/// Refuses new requests from now on; returns until when the others may run.
fn begin_stop(server: &Server, report: &mut dyn FnMut(&Report), grace: Duration) -> Instant {
    server.is_stopping.store(true, Ordering::Relaxed);
    report(&Report::Stopping);
    Instant::now() + grace
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn router(server: &Arc<Server>) -> Router {
    let missing = |request: Request| async move {
        let message = format!("there is no {} here", request.uri().path());
        Refusal::new(StatusCode::NOT_FOUND, "unknown_path", message)
    };
    let other_method = |request: Request| async move {
        let message = format!("{} does not take {}", request.uri().path(), request.method());
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
    };
    Router::new()
        .route("/v1/completions", post(|state, request| complete(Kind::Text, state, request)))
        .route("/v1/chat/completions", post(|state, request| complete(Kind::Chat, state, request)))
        .route("/v1/models", get(models))
        .route("/v1/models/{name}", get(model))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(missing)
        .method_not_allowed_fallback(other_method)
        .layer(middleware::from_fn_with_state(server.clone(), admit))
        .with_state(server.clone())
}

/// The path of a request as metrics name it.
fn path_name(path: &str) -> &'static str {
    match path {
        "/v1/completions" => "/v1/completions",
        "/v1/chat/completions" => "/v1/chat/completions",
        "/health" => "/health",
        "/metrics" => "/metrics",
        path if path.starts_with("/v1/models") => "/v1/models",
        _ => "other",
    }
}

/// Lets in who has a key, while the server takes requests; counts and reports what came of it.
async fn admit(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = if let Err(refusal) = connection::check_headers(request.headers()) {
        refusal.into_response()
    } else if path != "/health" && !server.has_key(request.headers()) {
        let message = "this server wants a key: send it as `Authorization: Bearer KEY`";
        Refusal::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message).into_response()
    } else if method == Method::POST && server.is_stopping.load(Ordering::Relaxed) {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server stops").into_response()
    } else {
        next.run(request).await
    };
    let status = response.status().as_u16();
    server.served.metrics.answered(path_name(&path), status);
    let milliseconds = begun.elapsed().as_millis() as u64;
    // Nobody listens any more when the server has stopped.
    let _ = server.reports.send(Report::Answered { method: method.to_string(), path, status, milliseconds });
    response
}

impl Server {
    fn has_key(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given
            .and_then(|value| value.split_once(' '))
            .filter(|pair| pair.0.eq_ignore_ascii_case("bearer"));
        let hash = given.map(|(_, key)| blake3::hash(key.trim().as_bytes()));
        self.keys.is_empty() || hash.is_some_and(|hash| self.keys.contains(&hash))
    }

    fn model_json(&self) -> serde_json::Value {
        json!({
            "id": self.served.name,
            "object": "model",
            "created": self.started,
            "owned_by": "skipc",
            "max_model_len": self.served.limits.positions,
        })
    }
}

async fn health(State(server): State<Arc<Server>>) -> Response {
    match server.is_stopping.load(Ordering::Relaxed) {
        true => Refusal::ended().into_response(),
        false => json_response(&json!({"status": "ok"})),
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let mut response = Response::new(Body::from(server.served.metrics.text()));
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn models(State(server): State<Arc<Server>>) -> Response {
    json_response(&json!({"object": "list", "data": [server.model_json()]}))
}

async fn model(State(server): State<Arc<Server>>, request: Request) -> Result<Response, Refusal> {
    let asked = request.uri().path().rsplit('/').next().unwrap_or_default();
    match asked == server.served.name {
        true => Ok(json_response(&server.model_json())),
        false => {
            let message = format!("unknown model `{asked}`; this server has `{}`", server.served.name);
            Err(Refusal::new(StatusCode::NOT_FOUND, "model_not_found", message))
        }
    }
}

/// Continues the prompts of a request.
async fn complete(
    kind: Kind,
    State(server): State<Arc<Server>>,
    request: Request,
) -> Result<Response, Refusal> {
    let deadline = Instant::now() + server.timeout;
    let read_time = READ_TIME.min(server.timeout);
    let too_slow = |_| {
        let message = format!("the body did not come within {} seconds", read_time.as_secs());
        Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
    };
    let body = timeout(read_time, read_body(request)).await.map_err(too_slow)??;
    let params = Params::parse(kind, &body, &server.served)?;
    let n_choices = params.n_choices();
    if n_choices > server.capacity as usize {
        let message =
            format!("{n_choices} continuations in one request; this server takes {}", server.capacity);
        return Err(Refusal::at("n", "invalid_value", message));
    }
    let mut permits = server.permits.clone().try_acquire_many_owned(n_choices as u32).map_err(|_| {
        let message = format!("the queue is full: {} continuations run or wait", server.capacity);
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
    })?;
    let (sender, events) = unbounded_channel();
    let choice =
        |(index, request)| Choice { request, index, events: sender.clone(), permit: permits.split(1) };
    let choices = params.requests().enumerate().map(choice).collect();
    drop(sender);
    let answer = Answer {
        params,
        number: server.n_answers.fetch_add(1, Ordering::Relaxed),
        events,
        deadline,
        created: seconds(),
        progress: vec![ChoiceProgress::default(); n_choices],
        server: server.clone(),
    };
    let refused = |error: Option<_>| error.as_ref().map_or_else(Refusal::ended, Refusal::of);
    server.engine.submit(choices).await.map_err(refused)?;
    match answer.params.stream {
        true => Ok(answer.pieces()),
        false => answer.whole().await,
    }
}

/// The body of a request, if it is not too long.
async fn read_body(request: Request) -> Result<Bytes, Refusal> {
    let mut pieces = request.into_body().into_data_stream();
    let (mut body, mut length) = (Vec::new(), 0);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| {
            let message = format!("the body ends early: {error}");
            Refusal::new(StatusCode::BAD_REQUEST, "invalid_body", message)
        })?;
        length += piece.len();
        if length <= BODY_BYTES {
            body.extend_from_slice(&piece);
        } else if length > BODY_BYTES * DRAIN_FACTOR {
            break;
        }
    }
    match length > BODY_BYTES {
        true => {
            let message = format!("a body has at most {BODY_BYTES} bytes");
            Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message))
        }
        false => Ok(body.into()),
    }
}

//! The thread that owns the model's session: it takes requests between the steps of the engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use skipc_artifact::program::SCORE;
use skipc_runtime::decode::{
    self, ChatTemplate, Decoder, EngineOptions, Event, LanguageFiles, Limits, Listener, Request, Tokenizer,
};
use skipc_runtime::{Device, Error, Model, Module, Opening};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::metrics::Metrics;

/// What runs where.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// The artefact with its tokenizer and chat template.
    pub files: LanguageFiles,
    /// Public keys, one of which has to have signed it.
    pub trust: Option<PathBuf>,
    /// Where it runs.
    pub device: Device,
    /// Of the device.
    pub options: skipc_runtime::Options,
    /// How many requests run at a time.
    pub slots: u32,
    /// Room for so many tokens of all slots together; for the longest sequence in each by default.
    pub cache_tokens: Option<u32>,
    /// What each router decides about, by name, for metrics.
    pub layers: Vec<String>,
}

/// A model that is ready to continue requests.
pub(super) struct Served {
    pub(super) name: String,
    pub(super) limits: Limits,
    pub(super) tokenizer: Option<Arc<dyn Tokenizer>>,
    pub(super) template: Option<ChatTemplate>,
    pub(super) metrics: Arc<Metrics>,
    /// What the model runs on, in words.
    pub(super) device: String,
}

/// Gives requests to the engine's thread.
#[derive(Clone)]
pub(super) struct Engine {
    commands: Sender<Command>,
}

/// A continuation of a request: what to continue, and who hears of it under which number.
pub(super) struct Choice {
    pub(super) request: Request,
    pub(super) index: usize,
    pub(super) events: UnboundedSender<(usize, Event)>,
    /// Its place among those that the server takes at a time, given back once it has ended, whether or not its client
    /// reads the answer.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

enum Command {
    /// All continuations of one request, and where to say whether they were taken.
    Submit(Vec<Choice>, oneshot::Sender<Result<(), Error>>),
    Stop,
}

impl Engine {
    /// Gives the continuations of one request to the engine, in their order.
    ///
    /// # Errors
    ///
    /// Of the request, or none where the engine has ended.
    pub(super) async fn submit(&self, choices: Vec<Choice>) -> Result<(), Option<Error>> {
        let (reply, taken) = oneshot::channel();
        self.commands.send(Command::Submit(choices, reply)).map_err(|_| None)?;
        taken.await.map_err(|_| None)?.map_err(Some)
    }

    /// Ends the thread after its step; what runs is given up.
    pub(super) fn stop(&self) {
        // An engine that has ended needs no word.
        let _ = self.commands.send(Command::Stop);
    }
}

/// The engine with its model, its thread, and what becomes known when that ends.
pub(super) struct Started {
    pub(super) served: Served,
    pub(super) engine: Engine,
    pub(super) thread: JoinHandle<()>,
    /// An error, if it did not end because it was told to; nothing at all after a panic.
    pub(super) ended: oneshot::Receiver<Result<(), Error>>,
}

/// Loads the model in a thread of its own, and waits until it is ready.
///
/// # Errors
///
/// What the model, its tokenizer or the memory for its caches lack; none where the thread could not say.
pub(super) fn start(settings: &EngineSettings) -> Result<Started, Option<Error>> {
    let (commands, received) = channel();
    let (ready, when_ready) = channel();
    let (end, ended) = oneshot::channel();
    let settings = settings.clone();
    let run = move || match load(&settings) {
        Ok((mut engine, served)) => {
            let metrics = served.metrics.clone();
            // Who started it waits for this, or has gone, and then no command comes.
            let _ = ready.send(Ok(served));
            let _ = end.send(run(&mut engine, &received, &metrics));
        }
        Err(error) => drop(ready.send(Err(error))),
    };
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(run)
        .map_err(|error| Some(Error::Threads { threads: 1, reason: error.to_string() }))?;
    let served = when_ready.recv().map_err(|_| None)?.map_err(Some)?;
    Ok(Started { served, engine: Engine { commands }, thread, ended })
}

type Running = decode::Engine;

fn load(settings: &EngineSettings) -> Result<(Running, Served), Error> {
    let EngineSettings { files, trust, device, options, slots, cache_tokens, layers } = settings;
    let opening = Opening { trust: trust.as_deref(), ..Opening::default() };
    let model = Model::open_as(&files.model, &opening)?;
    let module = Module::load(&model, *device, *options)?;
    let tokenizer = match files.tokenizer(module.function(SCORE)?.vocab_size) {
        // Prompts of token ids need none.
        Err(Error::PromptVocabulary { .. }) => None,
        tokenizer => Some(tokenizer?),
    };
    let template = files.chat_template()?;
    let engine_options = EngineOptions {
        slots: *slots,
        cache_tokens: *cache_tokens,
        tokenizer: tokenizer.clone(),
        ..EngineOptions::default()
    };
    let engine = decode::Engine::of_module(&model, &module, engine_options)?;
    let limits = engine.decoder().limits();
    let metrics = Arc::new(Metrics::new(layers.clone()));
    metrics.set_pages(engine.decoder().pages());
    let name = model.artifact().manifest().model.clone();
    Ok((engine, Served { name, limits, tokenizer, template, metrics, device: module.describe() }))
}

fn run(engine: &mut Running, commands: &Receiver<Command>, metrics: &Arc<Metrics>) -> Result<(), Error> {
    loop {
        // Waits only where there is nothing to do.
        let first = match engine.is_idle() {
            true => match commands.recv() {
                Ok(command) => Some(command),
                Err(_) => return Ok(()),
            },
            false => None,
        };
        for command in first.into_iter().chain(commands.try_iter()) {
            match command {
                // Who has gone needs no answer.
                Command::Submit(choices, reply) => drop(reply.send(take(engine, choices, metrics))),
                Command::Stop => return Ok(()),
            }
        }
        let progress = engine.step()?;
        metrics.stepped(progress, (engine.running(), engine.waiting()), engine.decoder().pages());
    }
}

/// After an error, those that were taken are given up with the step: nobody hears their events.
fn take(engine: &mut Running, choices: Vec<Choice>, metrics: &Arc<Metrics>) -> Result<(), Error> {
    choices.into_iter().try_for_each(|Choice { request, index, events, permit }| {
        let metrics = metrics.clone();
        engine.submit_to(request, Box::new(Listening { index, events, permit, metrics }))
    })
}

/// Passes the events of a continuation on to whoever answers its request.
struct Listening {
    index: usize,
    events: UnboundedSender<(usize, Event)>,
    permit: Option<OwnedSemaphorePermit>,
    metrics: Arc<Metrics>,
}

impl Listener for Listening {
    fn tell(&mut self, event: Event) {
        match event {
            Event::Ran { gates, .. } => return self.metrics.ran(&gates),
            Event::Token { .. } => {}
            // Given back before the client knows that it may ask again.
            Event::Finished { .. } | Event::Failed(_) => self.permit = None,
        }
        // Who has gone meanwhile is found before the next step.
        let _ = self.events.send((self.index, event));
    }

    fn is_gone(&self) -> bool {
        self.events.is_closed()
    }
}

//! Continues texts, several at a time:
//! `cargo run --release -p skipc-runtime --example engine -- M.skp "And God said" "In the beginning"`.
//!
//! One thread steps the engine; each request is read by a thread of its own, event by event as they come.

use skipc_runtime::decode::{Engine, EngineOptions, Event, Handle, Request};
use skipc_runtime::{Device, Error, Model};

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let Some(path) = args.next() else {
        return Err(Error::Usage("give a compiled model and texts to continue".into()));
    };
    let prompts: Vec<String> = args.collect();
    let texts = continue_all(&Model::open(path.as_ref())?, &prompts, 64)?;
    for (prompt, text) in prompts.iter().zip(texts) {
        println!("{prompt}{text}\n");
    }
    Ok(())
}

/// What the model adds to each text: the likeliest tokens, so many of each.
pub(crate) fn continue_all(model: &Model, prompts: &[String], count: u32) -> Result<Vec<String>, Error> {
    let options = EngineOptions { slots: 4, ..EngineOptions::default() };
    let mut engine = Engine::new(model, Device::Cpu, options)?;
    let mut handles = Vec::new();
    for prompt in prompts {
        handles.push(engine.submit(Request::greedy(engine.encode(prompt)?, count))?);
    }
    std::thread::scope(|scope| {
        let readers: Vec<_> =
            handles.into_iter().map(|handle| scope.spawn(move || text_of(handle))).collect();
        while !engine.is_idle() {
            engine.step()?;
        }
        // No event comes any more, so that no reader waits.
        drop(engine);
        let text = |reader: std::thread::ScopedJoinHandle<'_, Result<String, Error>>| match reader.join() {
            Ok(text) => text,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        readers.into_iter().map(text).collect()
    })
}

/// The text of a request, read to its end.
fn text_of(handle: Handle) -> Result<String, Error> {
    let mut whole = String::new();
    for event in handle {
        match event {
            Event::Token { text, .. } | Event::Finished { text, .. } => whole += &text,
            Event::Failed(error) => return Err(error),
            Event::Ran { .. } => {}
        }
    }
    Ok(whole)
}

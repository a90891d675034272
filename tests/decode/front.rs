//! The program that shows how an engine is used, run on the example.

use skipc::frontend::lower::KeyValues;
use skipc_runtime::Device;
use skipc_runtime::decode::{Engine, EngineOptions, Finish, Request};

use crate::example;

#[path = "../../backends/runtime/examples/engine.rs"]
#[expect(dead_code, reason = "its command line is that of a program")]
mod program;

#[test]
fn the_program_in_the_documentation_runs() {
    let model = example(KeyValues::Lazy);
    let prompts = ["And God said", "In the beginning", "Blessed", "The LORD", "Now", "And it came to pass"];
    let texts = program::continue_all(&model, &prompts.map(str::to_owned), 24).unwrap();
    // One at a time, on caches of the smallest size for it.
    let options = EngineOptions { slots: 1, cache_tokens: Some(64), ..EngineOptions::default() };
    let mut engine = Engine::new(&model, Device::Cpu, options).unwrap();
    for (prompt, text) in prompts.iter().zip(texts) {
        let alone = engine.complete(Request::greedy(engine.encode(prompt).unwrap(), 24)).unwrap();
        assert_eq!((alone.tokens.len(), alone.finish), (24, Finish::MaxNewTokens));
        assert_eq!(text, alone.text, "{prompt}");
        assert_eq!(text.len(), 24, "{text}");
    }
}

/// What the model or the caller lacks is told, and no slot stays taken.
#[test]
fn requests_that_cannot_run_are_refused() {
    let model = example(KeyValues::Eager);
    let none = EngineOptions { slots: 0, ..EngineOptions::default() };
    assert_eq!(Engine::new(&model, Device::Cpu, none).err().map(|error| error.code()), Some("run::usage"));
    let options = EngineOptions { slots: 1, cache_tokens: Some(64), ..EngineOptions::default() };
    let mut engine = Engine::new(&model, Device::Cpu, options).unwrap();
    let long = Request::greedy(vec![65; 70], 40);
    assert_eq!(engine.complete(long).unwrap_err().code(), "run::cache-full");
    assert_eq!(engine.complete(Request::greedy(vec![], 1)).unwrap_err().code(), "run::empty-prompt");
    assert!(engine.is_idle());
    assert_eq!(engine.complete(Request::greedy(vec![65], 3)).unwrap().tokens.len(), 3);
}

//! Requests on a toy decoder whose results are a function of each sequence alone.

use super::*;
use crate::decode::request::Finish;
use crate::decode::sampling::{Draw, Sampling};
use crate::decode::tokenizer::Bytes;
use crate::decode::toy::Toy;

/// Tokens, decisions and the end of one request.
#[derive(Debug, Default)]
struct Told {
    tokens: Vec<u32>,
    gates: Vec<u8>,
    text: String,
    finish: Option<Finish>,
    failed: Option<Error>,
}

fn told(handle: &Handle) -> Told {
    let mut told = Told::default();
    for event in handle.ready() {
        assert!(told.finish.is_none() && told.failed.is_none(), "{event:?} after the end");
        match event {
            Event::Ran { gates, .. } => told.gates.extend(&gates[0]),
            Event::Token { token, text, .. } => {
                told.tokens.push(token);
                told.text += &text;
            }
            Event::Finished { text, reason } => {
                told.text += &text;
                told.finish = Some(reason);
            }
            Event::Failed(error) => told.failed = Some(error),
        }
    }
    told
}

fn requests() -> Vec<Request> {
    let sampling = Sampling { temperature: 0.9, seed: 3, ..Sampling::default() };
    let request = |idx: u32| {
        let prompt = (0..1 + idx * 5 % 17).map(|at| (at * 3 + idx) % 6).collect();
        let sampling = if idx.is_multiple_of(3) { Sampling::default() } else { sampling };
        Request { sampling, sequence: idx, draw: idx.into(), ..Request::greedy(prompt, 3 + idx % 9) }
    };
    (0..12).map(request).collect()
}

/// What becomes of a request without an engine.
fn alone(toy: &Toy, request: &Request) -> (Vec<u32>, Vec<u8>) {
    let mut tokens = request.prompt.clone();
    for _ in 0..request.max_new_tokens {
        let draw = Draw { request: request.draw, position: tokens.len() as u64 };
        tokens.push(request.sampling.choose(&toy.logits(&tokens), &tokens, draw));
    }
    let ran = tokens[..tokens.len() - 1].iter().enumerate();
    let gates = ran.map(|(at, token)| Toy::gate(request.sequence, at, *token)).collect();
    (tokens.split_off(request.prompt.len()), gates)
}

fn run_all(toy: Toy, options: EngineOptions, requests: &[Request]) -> (Engine<Toy>, Vec<Told>) {
    let mut engine = Engine::on(toy, options).unwrap();
    let submit = |request: &Request| engine.submit(request.clone()).unwrap();
    let handles: Vec<Handle> = requests.iter().map(submit).collect();
    while !engine.is_idle() {
        engine.step().unwrap();
    }
    let told = handles.iter().map(told).collect();
    (engine, told)
}

/// Slots, tokens a step and memory change when something runs, never what comes out.
#[test]
fn requests_do_not_depend_on_each_other() {
    let requests = requests();
    let longest = requests.iter().map(|request| request.prompt.len() + request.max_new_tokens as usize).max();
    for (slots, step_tokens) in [(1, 64), (1, 1), (3, 7), (4, 2), (12, 64), (20, 5)] {
        for memory in [usize::MAX, 60, longest.unwrap()] {
            let toy = Toy { memory, ..Toy::new(slots, step_tokens) };
            let (engine, told) = run_all(toy, EngineOptions::default(), &requests);
            for (request, told) in requests.iter().zip(told) {
                let (tokens, gates) = alone(engine.decoder(), request);
                assert_eq!((told.tokens, told.gates), (tokens, gates), "{slots} slots, memory {memory}");
                assert_eq!(told.finish, Some(Finish::MaxNewTokens));
            }
            assert!(engine.decoder().slots.is_empty() && engine.free.len() == slots as usize);
            assert!(engine.decoder().steps.iter().all(|tokens| *tokens <= step_tokens as usize));
        }
    }
}

/// A draft changes what runs, never what comes out: likeliest tokens and drawn ones, decisions, and the end.
#[test]
fn drafts_change_nothing_but_the_steps() {
    let requests: Vec<Request> =
        requests().into_iter().map(|request| Request { max_new_tokens: 40, ..request }).collect();
    let (_, plain) = run_all(Toy::new(4, 64), EngineOptions::default(), &requests);
    for (tokens, draft_density, slots, step_tokens, memory) in
        [(1, 0.5, 4, 64, usize::MAX), (4, 0.0, 4, 64, usize::MAX), (7, 1.0, 3, 10, 90), (3, 0.3, 1, 2, 64)]
    {
        let options = EngineOptions {
            speculation: Some(Speculation { tokens, draft_density }),
            ..EngineOptions::default()
        };
        let toy = Toy { memory, ..Toy::new(slots, step_tokens) };
        let (engine, told) = run_all(toy, options, &requests);
        for (told, plain) in told.iter().zip(&plain) {
            assert_eq!((&told.tokens, &told.gates), (&plain.tokens, &plain.gates), "{tokens} a draft");
            assert_eq!(told.finish, plain.finish);
        }
        let Drafts { proposed, accepted, .. } = engine.drafts();
        assert!(proposed > 50 && accepted > 0, "{accepted} of {proposed}");
        // A draft of all layers says what the model says.
        assert_eq!(draft_density == 1.0, accepted == proposed, "{accepted} of {proposed}");
        assert!(engine.decoder().slots.is_empty());
        assert!(engine.decoder().steps.iter().all(|tokens| *tokens <= step_tokens as usize));
    }
}

#[test]
fn drafts_save_steps_and_respect_stop_texts() {
    let options = || EngineOptions {
        speculation: Some(Speculation { tokens: 4, draft_density: 1.0 }),
        ..with_letters()
    };
    let stopping: Vec<Request> =
        (0..40).map(|draw| Request { stop: vec!["ca".into(), "bb".into()], ..warm("ab", draw) }).collect();
    let (plain_engine, plain) = run_all(Toy::new(8, 64), with_letters(), &stopping);
    let (engine, told) = run_all(Toy::new(8, 64), options(), &stopping);
    for (told, plain) in told.iter().zip(&plain) {
        assert_eq!((&told.text, &told.tokens, told.finish), (&plain.text, &plain.tokens, plain.finish));
    }
    let (steps, plain_steps) = (engine.decoder().steps.len(), plain_engine.decoder().steps.len());
    assert!(steps * 2 < plain_steps, "{steps} against {plain_steps}");
}

#[test]
fn steps_are_filled_and_the_youngest_gives_way() {
    let (engine, _) = run_all(Toy::new(12, 64), EngineOptions::default(), &requests());
    assert_eq!(engine.decoder().steps[0], 64, "the first prompts fill a step");
    assert_eq!(engine.decoder().started, 12);
    let toy = Toy { memory: 30, ..Toy::new(12, 64) };
    let (engine, _) = run_all(toy, EngineOptions::default(), &requests());
    assert!(engine.decoder().started > 12, "one ran again");
    let options = EngineOptions { step_tokens: Some(9), ..EngineOptions::default() };
    let (engine, _) = run_all(Toy::new(12, 64), options, &requests());
    assert!(engine.decoder().steps.iter().all(|tokens| *tokens <= 9));
}

#[test]
fn sequences_that_go_on_do_not_wait_for_long_prompts() {
    let mut engine = Engine::on(Toy::new(2, 4), EngineOptions::default()).unwrap();
    let first = engine.submit(Request::greedy(vec![1], 20)).unwrap();
    engine.step().unwrap();
    let _second = engine.submit(Request::greedy(vec![2; 30], 1)).unwrap();
    for steps in 2..8 {
        let progress = engine.step().unwrap();
        assert_eq!(progress, Progress { prompt_tokens: 3, new_tokens: 1, known_tokens: 0 }, "step {steps}");
    }
    assert_eq!(told(&first).tokens.len(), 7);
}

#[test]
fn who_goes_frees_the_slot_within_a_step() {
    let mut engine = Engine::on(Toy::new(1, 4), EngineOptions::default()).unwrap();
    let gone = engine.submit(Request::greedy(vec![1; 20], 20)).unwrap();
    let waits_and_goes = engine.submit(Request::greedy(vec![1], 20)).unwrap();
    let stays = engine.submit(Request::greedy(vec![2], 2)).unwrap();
    engine.step().unwrap();
    assert_eq!((engine.running(), engine.waiting()), (1, 2));
    drop((gone, waits_and_goes));
    engine.step().unwrap();
    assert_eq!((engine.running(), engine.waiting()), (1, 0));
    engine.step().unwrap();
    assert_eq!(told(&stays).finish, Some(Finish::MaxNewTokens));
    assert!(engine.is_idle() && engine.step().unwrap() == Progress::default());
}

#[test]
fn sequences_end_at_the_last_position() {
    for (given, new) in [(60, 4), (63, 1), (64, 0)] {
        let (_, told) =
            run_all(Toy::new(1, 64), EngineOptions::default(), &[Request::greedy(vec![1; given], 9)]);
        assert_eq!((told[0].tokens.len(), told[0].finish), (new, Some(Finish::Positions)), "{given}");
    }
    let (_, told) = run_all(Toy::new(1, 64), EngineOptions::default(), &[Request::greedy(vec![1], 0)]);
    assert_eq!((told[0].tokens.len(), told[0].finish), (0, Some(Finish::MaxNewTokens)));
}

#[test]
fn one_fails_and_the_others_go_on() {
    let toy = Toy { broken_by: Some(5), ..Toy::new(2, 64) };
    let requests =
        [Request { sequence: 4, ..Request::greedy(vec![1, 5], 9) }, Request::greedy(vec![2, 2], 1)];
    let (engine, told) = run_all(toy, EngineOptions::default(), &requests);
    let error = told[0].failed.as_ref().unwrap();
    assert_eq!(error.to_string(), "the logits of token 1 of sequence 4 are not finite: one is NaN");
    assert!(told[0].tokens.is_empty() && told[1].finish == Some(Finish::MaxNewTokens));
    assert!(engine.decoder().slots.is_empty());
    let small = Toy { memory: 4, ..Toy::new(2, 64) };
    let (_, told) = run_all(small, EngineOptions::default(), &[Request::greedy(vec![1; 3], 9)]);
    assert_eq!((told[0].tokens.len(), told[0].failed.as_ref().unwrap().code()), (2, "run::cache-full"));
}

/// Six letters, of which one ends and one is padding.
struct Letters;

impl Tokenizer for Letters {
    fn vocab_size(&self) -> u32 {
        5
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(text.bytes().map(|byte| u32::from(byte - b'a')).collect())
    }

    fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        tokens.iter().map(|token| b'a' + *token as u8).collect()
    }

    fn ends(&self) -> &[u32] {
        &[3]
    }
}

fn with_letters() -> EngineOptions {
    EngineOptions { tokenizer: Some(Arc::new(Letters)), ..EngineOptions::default() }
}

fn warm(prompt: &str, draw: u64) -> Request {
    let sampling = Sampling { temperature: 2.0, ..Sampling::default() };
    Request { sampling, draw, ..Request::greedy(Letters.encode(prompt).unwrap(), 40) }
}

#[test]
fn a_token_ends_a_sequence_and_padding_is_never_drawn() {
    let requests: Vec<Request> = (0..40).map(|draw| warm("abc", draw)).collect();
    let (_, told) = run_all(Toy::new(8, 64), with_letters(), &requests);
    let mut ended = 0;
    for Told { tokens, text, finish, .. } in told {
        assert!(tokens.iter().all(|token| *token < 5));
        let shown: Vec<u32> = tokens.iter().copied().filter(|token| *token != 3).collect();
        assert_eq!(text.as_bytes(), Letters.decode(&shown));
        let end = tokens.iter().position(|token| *token == 3);
        assert_eq!(end.map(|at| at + 1), (finish == Some(Finish::End)).then_some(tokens.len()));
        ended += u32::from(end.is_some());
    }
    assert!(ended > 20, "{ended} of 40 ended");
    assert_eq!((Finish::End.reason(), Finish::Positions.reason()), ("stop", "length"));
}

#[test]
fn a_text_ends_a_sequence() {
    let plain: Vec<Request> = (0..40).map(|draw| warm("ab", draw)).collect();
    let stopping: Vec<Request> = plain
        .iter()
        .map(|request| Request { stop: vec!["ca".into(), "bb".into()], ..request.clone() })
        .collect();
    let (_, plain) = run_all(Toy::new(8, 64), with_letters(), &plain);
    let (_, stopped) = run_all(Toy::new(8, 64), with_letters(), &stopping);
    let mut count = 0;
    for (plain, stopped) in plain.iter().zip(&stopped) {
        let at = ["ca", "bb"].iter().filter_map(|stop| plain.text.find(stop)).min();
        assert_eq!(stopped.text, plain.text[..at.unwrap_or(plain.text.len())]);
        assert_eq!(stopped.finish == Some(Finish::StopText), at.is_some());
        assert!(plain.tokens.starts_with(&stopped.tokens));
        count += u32::from(at.is_some());
    }
    assert!((10..40).contains(&count), "{count} of 40 stopped");
}

#[test]
fn what_cannot_run_is_refused() {
    let mut engine = Engine::on(Toy::new(1, 4), EngineOptions::default()).unwrap();
    let cold = Sampling { temperature: -1.0, ..Sampling::default() };
    for (request, code) in [
        (Request::greedy(vec![], 1), "run::empty-prompt"),
        (Request::greedy(vec![0; 65], 1), "run::sequence-too-long"),
        (Request::greedy(vec![6], 1), "run::token-range"),
        (Request { stop: vec!["x".into()], ..Request::greedy(vec![0], 1) }, "run::usage"),
        (Request { sampling: cold, ..Request::greedy(vec![0], 1) }, "run::usage"),
    ] {
        assert_eq!(engine.submit(request).unwrap_err().code(), code);
    }
    assert!(engine.is_idle());
    let no_step = EngineOptions { step_tokens: Some(0), ..EngineOptions::default() };
    assert!(Engine::on(Toy::new(1, 4), no_step).is_err());
    assert!(Engine::on(Toy::new(0, 4), EngineOptions::default()).is_err());
    let mut nothing = Toy::new(1, 4);
    nothing.limits.vocab_size = 0;
    let mut engine = Engine::on(nothing, EngineOptions::default()).unwrap();
    assert_eq!(engine.submit(Request::greedy(vec![0], 1)).unwrap_err().code(), "run::token-range");
    assert!(Bytes::of(6).is_err() && Bytes::of(256).is_ok());
}

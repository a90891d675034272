//! Random models in every form that the compiler has, against each other.
//!
//! `cargo run --release --example generated-models` checks more of them; `tests/ledger/README.md` says how.

mod bounded;
mod campaign;
mod check;
mod choices;
mod convs;
mod experts;
mod forms;
mod identities;
mod ledger;
mod metamorphic;
mod model;
mod planted;
mod rules;
mod run;
mod shrink;
mod stacks;
mod steps;
mod subject;
mod tally;
mod training;
#[path = "../training/call.rs"]
mod training_call;
mod vision;

use std::path::Path;
use std::time::Instant;

use campaign::Campaign;
use forms::Honest;
use ledger::{Entry, Ledger};
use subject::{GENERATOR, Subject};
use tally::{Finding, Tally};

/// Models of plain language models that every run of the tests checks: with those below, 10,000.
const N_MODELS: u64 = 4_500;

/// Compiled code runs for every so many of them: generating it costs five times what all the rest of a model does.
const CODE_EVERY: u64 = 64;

/// Models in which each value of each option occurs, at least.
const OF_EACH_OPTION: u64 = 10;

/// Models of the present generator that long runs have checked, at least. Other generators drew other models: theirs stay in
/// the ledger and promise nothing of these.
const LEDGER_MODELS: u64 = 50_000;

/// Steps of generated training runs that long runs have checked, at least.
const LEDGER_STEPS: u64 = 20_000;

/// Values of options that the generator knows: a new one has to be generated too, and a lost one is noticed.
const N_OPTIONS: usize = 168;

/// Models with other branches and deciders of several steps that every run checks beside those.
const N_CHOICES: u64 = 1_500;

/// Values of options of choices that [`choices`] knows.
const N_CHOICE_OPTIONS: usize = 58;

/// Models with layers of experts that every run checks beside those.
const N_EXPERTS: u64 = 1_000;

/// Values of options of experts that [`experts`] knows.
const N_EXPERTS_OPTIONS: usize = 56;

/// Models with stacks that every run checks beside those.
const N_STACKS: u64 = 1_000;

/// Values of options of stacks that [`stacks`] knows.
const N_STACK_OPTIONS: usize = 41;

/// Models with the ends of an encoder that every run checks beside those.
const N_ENDS: u64 = 1_000;

/// Values of options of ends that [`vision`] knows.
const N_ENDS_OPTIONS: usize = 22;

/// Models with convolutions that every run checks beside those.
const N_CONVS: u64 = 1_000;

/// Values of options of convolutions that [`convs`] knows.
const N_CONVS_OPTIONS: usize = 35;

/// Training runs that every run checks beside those.
const N_TRAINEES: u64 = 300;

/// Values of options of training that [`training`] knows.
const N_TRAINING_OPTIONS: usize = 96;

/// What a campaign found, a line each. Prints the smallest subject on which the first of it is still found.
fn found(campaign: &Campaign, tally: &Tally) -> Vec<String> {
    if let Some(first) = tally.findings.first().filter(|first| first.seed < training::FIRST_SEED) {
        let subject = Subject::of(first.seed);
        let small = shrink::shrink(&Honest, &subject, &first.check, campaign.until(&subject));
        println!("{}\nsequences {:?}", small.model, small.sequences);
    }
    let line = |finding: &Finding| format!("seed {}: {}: {}", finding.seed, finding.check, finding.detail);
    tally.findings.iter().map(line).collect()
}

/// Checks so many models from this seed on, in which each of so many values of the options that begin so occurs often enough.
fn finds_nothing((from, count): (u64, u64), (prefix, n_options): (&str, usize)) -> Tally {
    let campaign = Campaign { from, count, threads: 2, code_every: CODE_EVERY, deadline: None };
    let tally = campaign.run(&Honest, &|_| {});
    let found = found(&campaign, &tally);
    assert!(found.is_empty(), "{} findings, such as {:#?}", found.len(), &found[..found.len().min(5)]);
    let options = tally.options.iter().filter(|(option, _)| option.starts_with(prefix));
    let n_models: Vec<u64> = options.map(|(_, n_models)| *n_models).collect();
    assert_eq!(n_models.len(), n_options, "{:#?}", tally.options);
    assert!(n_models.iter().all(|n_models| *n_models >= OF_EACH_OPTION), "{:#?}", tally.options);
    tally
}

#[test]
fn generated_choices() {
    finds_nothing((choices::FIRST_SEED, N_CHOICES), (choices::OPTION, N_CHOICE_OPTIONS));
}

#[test]
fn generated_experts() {
    let tally = finds_nothing((experts::FIRST_SEED, N_EXPERTS), (experts::OPTION, N_EXPERTS_OPTIONS));
    let (near, all) = (tally.near_choices, tally.choices);
    println!("{near} of {all} choices are near ties");
    assert!(near * 5 < all, "{near} of {all} choices");
}

#[test]
fn generated_stacks() {
    finds_nothing((stacks::FIRST_SEED, N_STACKS), (stacks::OPTION, N_STACK_OPTIONS));
}

#[test]
fn generated_ends() {
    finds_nothing((vision::FIRST_SEED, N_ENDS), (vision::OPTION, N_ENDS_OPTIONS));
}

#[test]
fn generated_convs() {
    finds_nothing((convs::FIRST_SEED, N_CONVS), (convs::OPTION, N_CONVS_OPTIONS));
}

#[test]
fn generated_training() {
    finds_nothing((training::FIRST_SEED, N_TRAINEES), (training::OPTION, N_TRAINING_OPTIONS));
}

#[test]
fn generated_models() {
    let campaign = Campaign { from: 0, count: N_MODELS, threads: 2, code_every: CODE_EVERY, deadline: None };
    let begin = Instant::now();
    let tally = campaign.run(&Honest, &|_| {});
    let entry = Entry::of(&campaign, &tally, "this".to_owned(), begin.elapsed().as_secs());
    println!("{}", serde_json::to_string_pretty(&entry).expect("an entry"));
    println!("{:#?}", tally.options);
    let found = found(&campaign, &tally);
    assert!(found.is_empty(), "\n{}\n(keep the seed in tests/cases/generated/seeds.txt)", found.join("\n"));
    assert_eq!(tally.models, N_MODELS);
    assert!(tally.refused.is_empty(), "the planner takes every model that there is");
    let rare: Vec<_> = tally.options.iter().filter(|(_, count)| **count < OF_EACH_OPTION).collect();
    assert!(rare.is_empty(), "too rare to be tested: {rare:?}");
    assert_eq!(tally.options.len(), N_OPTIONS, "values of options");
    // What no bound is known for is not checked in f32, and a near tie not at all.
    assert!(tally.unbounded * 5 < tally.bounded, "{} of {} logits", tally.unbounded, tally.bounded);
    assert!(tally.near_ties * 10 < tally.decisions, "{} of {} decisions", tally.near_ties, tally.decisions);
}

#[test]
fn seeds_that_were_once_found_stay_right() {
    let kept = include_str!("../cases/generated/seeds.txt");
    let lines = kept.lines().filter(|line| !line.starts_with('#'));
    let seeds: Vec<u64> = lines
        .map(|line| line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a seed first"))
        .collect();
    assert!(!seeds.is_empty());
    for from in seeds {
        let campaign = Campaign { from, count: 1, threads: 1, code_every: 1, deadline: None };
        let tally = campaign.run(&Honest, &|_| {});
        assert_eq!(tally.models, 1);
        let found: Vec<_> = tally.findings.iter().map(|finding| (&finding.check, &finding.detail)).collect();
        assert!(found.is_empty(), "seed {from}: {found:?}");
    }
}

#[test]
fn the_ledger_leaves_nothing_unexplained() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledger/generated.json");
    let ledger = Ledger::read(&path);
    assert!(!ledger.runs.is_empty(), "the ledger has no run");
    let copy = tempfile::tempdir().expect("a folder").path().join("folder/copy.json");
    ledger.write(&copy).expect("a copy");
    let read = |path: &Path| std::fs::read_to_string(path).expect("a ledger");
    assert_eq!(read(&copy), read(&path), "the ledger is not what the long run writes");
    let mut seen: Vec<(u32, u64, u64)> = Vec::new();
    for run in &ledger.runs {
        assert_eq!(run.unexplained, 0, "seeds {} to {}", run.from, run.to);
        assert_eq!(run.models, run.to - run.from, "seeds {} to {}", run.from, run.to);
        let twice = seen
            .iter()
            .any(|(generator, from, to)| *generator == run.generator && run.from < *to && *from < run.to);
        assert!(!twice, "seeds {} to {} count twice", run.from, run.to);
        seen.push((run.generator, run.from, run.to));
    }
    let checked = |are_trained: bool| -> u64 {
        let present = ledger.runs.iter().filter(|run| run.generator == GENERATOR);
        let of_kind = present.filter(|run| (run.from >= training::FIRST_SEED) == are_trained);
        of_kind.map(|run| run.models).sum()
    };
    let (models, steps) = (checked(false), checked(true) * training::STEPS);
    assert!(models >= LEDGER_MODELS, "the ledger has {models} models of generator {GENERATOR}");
    assert!(steps >= LEDGER_STEPS, "the ledger has {steps} steps of training of generator {GENERATOR}");
}

//! `skipc generate`: what it prints and writes, and that a row is continued as if it were alone.
#![cfg(feature = "cranelift")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use skipc_runtime::npy;
use tempfile::TempDir;

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().expect("skipc starts")
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = skipc(args);
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The example, compiled once for all tests.
fn example() -> &'static str {
    static COMPILED: OnceLock<(TempDir, String)> = OnceLock::new();
    let (_, path) = COMPILED.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("kjv.skp").display().to_string();
        let (spec, weights) = ("models/kjv-12l-d25.toml", "models/kjv-12l-d25.safetensors");
        succeeds(&["compile", "--cpu-levels", "native", spec, "--weights", weights, "-o", &path]);
        (folder, path)
    });
    path
}

const PROMPT: &str = "And God said";

fn generate(more: &[&str]) -> String {
    succeeds(&[&["generate", example()], more].concat())
}

fn json(more: &[&str]) -> Value {
    serde_json::from_str(&generate(&[more, &["--json"]].concat())).expect("JSON")
}

/// Without steps an artefact is smaller, and runs whole prefixes to the same text.
#[test]
fn an_artefact_without_steps_says_the_same() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("scores.skp").display().to_string();
    let (spec, weights) = ("models/kjv-12l-d25.toml", "models/kjv-12l-d25.safetensors");
    succeeds(&["compile", "--cpu-levels", "native", spec, "--weights", weights, "--no-steps", "-o", &path]);
    let more = ["--prompt", PROMPT, "--max-new-tokens", "100"];
    let generated = generate(&more);
    assert!(generated.starts_with(PROMPT) && generated.len() == PROMPT.len() + 101, "{generated}");
    assert_eq!(succeeds(&[&["generate", &path], &more[..]].concat()), generated);
    let length = |path: &str| std::fs::metadata(path).unwrap().len();
    assert!(length(&path) < length(example()), "{} bytes", length(&path));
}

#[test]
fn draws_depend_on_the_seed_alone() {
    let draw = |seed: &str| {
        generate(&[
            "--prompt",
            PROMPT,
            "--temperature",
            "1",
            "--top-p",
            "0.9",
            "--seed",
            seed,
            "--max-new-tokens",
            "40",
        ])
    };
    let first = draw("1");
    assert_eq!(first, draw("1"));
    assert_ne!(first, draw("2"));
    // One token left to draw from is the likeliest.
    let greedy = generate(&["--prompt", PROMPT, "--max-new-tokens", "40"]);
    let one = ["--prompt", PROMPT, "--temperature", "1", "--top-k", "1", "--max-new-tokens", "40"];
    assert_eq!(generate(&one), greedy);
}

/// Drafts with half of the layers change how long it takes, not what is said: at temperature 0, and drawn.
#[test]
fn drafts_do_not_change_the_text() {
    let mut proposed = 0;
    for prompt in ["And God said", "The LORD", "In those days", "Blessed", "And it came to pass"] {
        for more in [&[][..], &["--temperature", "0.8", "--top-p", "0.9", "--seed", "4"]] {
            let plain = [&["--prompt", prompt, "--max-new-tokens", "60"], more].concat();
            let drafting = [&plain[..], &["--speculate", "4", "--draft-density", "0.5"]].concat();
            let (plain, found) = (json(&plain), json(&drafting));
            assert_eq!(found["sequences"], plain["sequences"], "{prompt} {more:?}");
            assert!(plain.get("drafts").is_none());
            let drafts = |key: &str| found["drafts"][key].as_u64().unwrap();
            assert!(drafts("accepted") <= drafts("proposed"));
            proposed += drafts("proposed");
        }
    }
    assert!(proposed > 500, "{proposed}");
    // A draft of all layers is what the model says.
    let all = ["--prompt", PROMPT, "--max-new-tokens", "60", "--speculate", "3", "--draft-density", "1"];
    let found = json(&all);
    assert_eq!(found["drafts"]["accepted"], found["drafts"]["proposed"]);
    assert_eq!(found["drafts"]["executed_by_draft"], found["drafts"]["executed"]);
}

/// Fifty prompts, several at once: plain greedy and with drafts; the rate at which drafts are accepted is printed.
#[test]
fn drafts_of_fifty_prompts_are_what_greedy_says() {
    let begins =
        ["And God said", "The LORD", "In those days", "Blessed are", "And it came to pass", "Thou shalt"];
    let goes_on =
        [" unto", " and", " the", ", that", " of", " in the land", ": for", " with him", " of the house"];
    let texts = begins.iter().flat_map(|begin| goes_on.map(|end| format!("{begin}{end}"))).take(50);
    let rows: Vec<Vec<u32>> = texts.map(|text| text.bytes().map(u32::from).collect()).collect();
    assert_eq!(rows.len(), 50);
    let folder = TempDir::new().unwrap();
    let (tokens, lengths) = files(folder.path(), &rows);
    let [tokens, lengths] = [tokens, lengths].map(|path| path.display().to_string());
    let plain = ["--tokens", &tokens, "--lengths", &lengths, "--max-new-tokens", "24"];
    let drafting = [&plain[..], &["--speculate", "4", "--draft-density", "0.5"]].concat();
    let found = json(&drafting);
    assert_eq!(found["sequences"], json(&plain)["sequences"]);
    let [accepted, proposed] = ["accepted", "proposed"].map(|key| found["drafts"][key].as_u64().unwrap());
    println!(
        "{accepted} of {proposed} drafted tokens accepted, {:.1} %",
        accepted as f64 / proposed as f64 * 100.0
    );
    assert!(proposed >= 50 * 4 && accepted > proposed / 10, "{accepted} of {proposed}");
}

/// Rows of different lengths and an empty one, more than there are slots.
fn rows(folder: &Path) -> (PathBuf, PathBuf, Vec<Vec<u32>>) {
    let texts = ["In the beginning", "And", "", "The LORD is my shepherd; I shall", "A"];
    let rows: Vec<Vec<u32>> =
        texts.iter().cycle().take(40).map(|text| text.bytes().map(u32::from).collect()).collect();
    let (t, l) = files(folder, &rows);
    (t, l, rows)
}

/// Rows of tokens as files, and their lengths.
fn files(folder: &Path, rows: &[Vec<u32>]) -> (PathBuf, PathBuf) {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let padded = |row: &Vec<u32>| {
        let tokens = row.iter().map(|token| *token as i32);
        tokens.chain(std::iter::repeat_n(0, width - row.len())).collect::<Vec<i32>>()
    };
    let tokens: Vec<i32> = rows.iter().flat_map(padded).collect();
    let lengths: Vec<i32> = rows.iter().map(|row| row.len() as i32).collect();
    let (t, l) = (folder.join("t.npy"), folder.join("l.npy"));
    npy::write(&t, &[rows.len() as u64, width as u64], &tokens).unwrap();
    npy::write(&l, &[rows.len() as u64], &lengths).unwrap();
    (t, l)
}

#[test]
fn a_row_of_a_batch_is_continued_as_if_it_were_alone() {
    let folder = TempDir::new().unwrap();
    let (tokens, lengths, rows) = rows(folder.path());
    let out = folder.path().join("out.npy");
    let [t, l, o] = [&tokens, &lengths, &out].map(|path| path.display().to_string());
    let printed = generate(&["--tokens", &t, "--lengths", &l, "--max-new-tokens", "12", "--out", &o]);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), rows.len());
    let written = npy::read_ints(&out, &[2]).unwrap();
    let width = written.shape[1] as usize;
    for ((row, line), written) in rows.iter().zip(lines).zip(written.data.chunks(width)) {
        let new: Vec<i64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let alone = if row.is_empty() {
            Vec::new()
        } else {
            let text = String::from_utf8(row.iter().map(|byte| *byte as u8).collect()).unwrap();
            let found = json(&["--prompt", &text, "--max-new-tokens", "12"]);
            found["sequences"][0]["tokens"]
                .as_array()
                .unwrap()
                .iter()
                .map(|token| token.as_i64().unwrap())
                .collect()
        };
        assert_eq!(new, alone, "{row:?}");
        let whole: Vec<i64> = row.iter().map(|token| i64::from(*token)).chain(new).collect();
        assert_eq!(written[..whole.len()], whole);
        assert!(written[whole.len()..].iter().all(|token| *token == -1), "{written:?}");
    }
}

#[test]
fn a_search_finds_a_likelier_continuation_than_the_likeliest_tokens() {
    let of = |beams: &str| {
        let found = json(&["--prompt", PROMPT, "--beams", beams, "--max-new-tokens", "24"]);
        found["sequences"][0]["score"].as_f64().unwrap()
    };
    assert!(of("8") >= of("1") && of("8") < 0.0, "{} {}", of("8"), of("1"));
}

#[test]
fn a_stop_text_and_the_last_position_end_it() {
    let greedy = generate(&["--prompt", PROMPT, "--max-new-tokens", "40"]);
    let stop = &greedy[PROMPT.len() + 10..PROMPT.len() + 14];
    let found = json(&["--prompt", PROMPT, "--max-new-tokens", "40", "--stop", stop]);
    let sequence = &found["sequences"][0];
    assert_eq!(sequence["finish_reason"], "stop");
    let text = sequence["text"].as_str().unwrap();
    assert!(greedy[PROMPT.len()..].starts_with(text) && !text.contains(stop), "{text}");
    let long = "a".repeat(1020);
    let found = json(&["--prompt", &long, "--max-new-tokens", "100"]);
    assert_eq!(found["sequences"][0]["finish_reason"], "length");
    assert_eq!(found["sequences"][0]["at_last_position"], true);
}

#[test]
fn skips_are_shown_for_each_token() {
    let plain = generate(&["--prompt", PROMPT, "--max-new-tokens", "20"]);
    let output =
        skipc(&["generate", example(), "--prompt", PROMPT, "--max-new-tokens", "20", "--show-skips"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), plain, "no colours in a pipe");
    assert!(String::from_utf8_lossy(&output.stderr).contains("of 9 routers executed"));
}

#[test]
fn bytes_are_those_of_what_executed() {
    let found = json(&["--prompt", PROMPT, "--max-new-tokens", "20"]);
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no number: {found}"));
    let bytes = &found["bytes_a_token"];
    let (weights, caches, all) =
        (number(&bytes["weights"]), number(&bytes["caches"]), number(&bytes["if_all_executed"]));
    // The head, whose rows are the embedding's, and three blocks of 16384 · 2 + 8192 · 2 + 49152 · 3 weights at least;
    // of twelve at most, and what else is small.
    let (head, block) = (4.0 * 32768.0, 4.0 * 196_608.0);
    assert!(weights > head + 3.0 * block && weights < head + 12.0 * block, "{found}");
    assert!(all > head + 12.0 * block && all < 1.2 * (head + 12.0 * block), "{found}");
    // A token writes keys and values of blocks that run, and reads as many for each token before it.
    let row = 12.0 * 2.0 * 4.0 * 64.0;
    assert!(caches > row / 4.0 && caches < 31.0 * row * 1.1, "{found}");
    let said = skipc(&["generate", example(), "--prompt", PROMPT, "--max-new-tokens", "20"]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains(&format!("touched {:.2} MB", (weights + caches) / 1e6)), "{said}");
}

#[test]
fn what_it_cannot_do_is_said() {
    let refused = |args: &[&str]| {
        let output = skipc(&[&["generate", example()], args].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(refused(&[]).0, Some(2));
    assert_eq!(refused(&["--prompt", "a", "--temperature", "-1"]).0, Some(2));
    assert_eq!(refused(&["--prompt", "a", "--beams", "2", "--seed", "1"]).0, Some(2));
    let (code, message) = refused(&["--prompt", &"a".repeat(5000)]);
    assert!(code == Some(1) && message.contains("positions"), "{code:?} {message}");
    let (code, message) = refused(&["--prompt", ""]);
    assert!(code == Some(1) && message.contains("run::empty-prompt"), "{code:?} {message}");
}

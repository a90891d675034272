//! Routing traces as users meet them: recorded, generated, shown, and replayed to the same bits.
#![cfg(feature = "cranelift")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const SPEC: &str = "models/kjv-12l-d25.toml";
const WEIGHTS: &str = "models/kjv-12l-d25.safetensors";
const TOKENS: &str = "tests/golden/kjv-12l-d25/tokens.npy";

const EXPERTS: &str = "tests/golden/experts";

/// Choices of its three layers of experts.
const CHOICES: [usize; 3] = [7, 4, 5];

/// Blocks 0, 4 and 8 of the example have no router.
const ROUTERS: usize = 9;

fn skipc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skipc")).args(args).env("NO_COLOR", "1").output().unwrap()
}

#[track_caller]
fn succeeds(args: &[&str]) -> String {
    let output = skipc(args);
    assert!(output.status.success(), "skipc {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs, expects this exit code, and all of these words in what the user reads.
#[track_caller]
fn fails(args: &[&str], exit: i32, words: &[&str]) {
    let output = skipc(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(exit), "skipc {args:?}: {text}");
    for word in words {
        assert!(text.contains(word), "skipc {args:?} should say `{word}`: {text}");
    }
}

struct Folder {
    dir: TempDir,
    artifact: String,
}

impl Folder {
    fn with_example() -> Folder {
        let folder = Folder::empty();
        succeeds(&["compile", SPEC, "--weights", WEIGHTS, "-o", &folder.artifact]);
        folder
    }

    fn with_experts() -> Folder {
        let folder = Folder::empty();
        let [spec, weights] = ["spec.toml", "weights.safetensors"].map(|name| format!("{EXPERTS}/{name}"));
        succeeds(&["compile", &spec, "--weights", &weights, "-o", &folder.artifact]);
        folder
    }

    fn empty() -> Folder {
        let dir = TempDir::new().unwrap();
        let artifact = dir.path().join("m.skp").display().to_string();
        Folder { dir, artifact }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn array<T: npyz::AutoSerialize + Copy>(&self, name: &str, shape: &[u64], data: &[T]) -> String {
        let path = self.path(name);
        skipc_runtime::npy::write(Path::new(&path), shape, data).unwrap();
        path
    }

    /// Runs with these options and gives the bytes of the logits.
    #[track_caller]
    fn logits(&self, options: &[&str]) -> Vec<u8> {
        let path = self.path("logits.npy");
        succeeds(&[&["run", &self.artifact, "--logits", &path], options].concat());
        fs::read(&path).unwrap()
    }
}

fn shown(trace: &str) -> Value {
    serde_json::from_str(&succeeds(&["trace", "show", trace, "--json"])).unwrap()
}

fn executed(shown: &Value) -> Vec<u64> {
    let routers = shown["routers"].as_array().unwrap();
    routers.iter().map(|router| router["executed"].as_u64().unwrap()).collect()
}

#[test]
fn a_recorded_trace_replays_to_the_same_bits() {
    let folder = Folder::with_example();
    let [recorded, written, array] = ["a.trace", "b.trace", "c.npy"].map(|name| folder.path(name));
    let text = succeeds(&["trace", "record", &folder.artifact, "--tokens", TOKENS, "-o", &recorded]);
    assert!(
        text.contains("recorded on cpu in f32") && text.contains("gate.8") && text.contains("by chance"),
        "{text}"
    );
    let free = folder.logits(&["--tokens", TOKENS, "--routing-out", &written]);
    assert!(fs::read(&recorded).unwrap() == fs::read(&written).unwrap(), "two ways to record one run differ");
    folder.logits(&["--tokens", TOKENS, "--routing-out", &array]);
    for routing in [&recorded, &array] {
        let again = folder.path("again.trace");
        let replayed = folder.logits(&["--tokens", TOKENS, "--routing", routing, "--routing-out", &again]);
        assert!(free == replayed, "a replay of {routing} differs");
        let again = shown(&again);
        assert_eq!(executed(&again), executed(&shown(&recorded)));
        assert!(again["provenance"]["source"]["recorded"]["replayed"].is_string());
    }
    assert_eq!(executed(&shown(&recorded)).len(), ROUTERS);
}

#[test]
fn generated_traces_hit_their_densities_wherever_they_run() {
    let folder = Folder::with_example();
    let (one, other) = (folder.path("one.trace"), folder.path("other.trace"));
    let per_layer = "0,0.1,0.25,0.3,0.5,0.6,0.75,0.9,1";
    let options = ["--lengths", "40,0,23,1", "--per-layer", per_layer, "--skew", "0.8", "--seed", "5"];
    succeeds(&[&["trace", "generate", SPEC, "-o", &one], &options[..]].concat());
    succeeds(&[&["trace", "generate", &folder.artifact, "-o", &other], &options[..]].concat());
    assert!(fs::read(&one).unwrap() == fs::read(&other).unwrap(), "spec and artefact are one model");
    let wanted: Vec<u64> =
        per_layer.split(',').map(|p| (p.parse::<f64>().unwrap() * 64.0).round() as u64).collect();
    assert_eq!(executed(&shown(&one)), wanted);

    let tokens: Vec<i32> = (0..160).map(|place| place * 7 % 256).collect();
    let tokens = folder.array("t.npy", &[4, 40], &tokens);
    let lengths = folder.array("l.npy", &[4], &[40i32, 0, 23, 1]);
    let batch = ["--tokens", &tokens, "--lengths", &lengths];
    let json = succeeds(&[&["run", &folder.artifact, "--json", "--routing", &one], &batch[..]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["run"]["executed"], serde_json::json!(wanted));

    // The same decisions as an array with padding.
    let array = folder.path("same.npy");
    let by_trace = folder.logits(&[&batch[..], &["--routing", &one, "--routing-out", &array]].concat());
    assert!(by_trace == folder.logits(&[&batch[..], &["--routing", &array]].concat()));
    assert!(by_trace != folder.logits(&batch), "the trace changes what runs");
}

#[test]
fn constant_routers_stay_and_equal_ones_agree() {
    let folder = Folder::empty();
    let trace = folder.path("x.trace");
    let generate = |spec: &str, more: &[&str]| {
        let args = ["trace", "generate", spec, "-o", &trace, "--tokens-per-row", "20", "--rows", "2"];
        succeeds(&[&args[..], more].concat());
        executed(&shown(&trace))
    };
    assert_eq!(generate("tests/golden/always/spec.toml", &["--density", "0.5"])[0], 40);
    assert_eq!(generate("tests/golden/never/spec.toml", &["--density", "0.5"])[0], 0);

    // The random routers of one block draw the same numbers, so the passes make them one.
    let spec = folder.path("twice.toml");
    let layer =
        r#"{ kind = "ffn", d_ff = 8, activation = "relu", skip = { router = "random", density = 0.5 } }"#;
    let text = format!(
        "[model]\nname = \"twice\"\nvocab_size = 16\nd_model = 8\nmax_positions = 64\n\
         [block.b]\nlayers = [{layer}, {layer}]\n[[stack]]\nblocks = [\"b\"]\n"
    );
    fs::write(&spec, text).unwrap();
    let args = ["trace", "generate", &spec, "-o", &trace, "--lengths", "30"];
    let shared = succeeds(&[&args[..], &["--density", "0.4"]].concat());
    assert!(shared.contains("12 of 30 tokens, 100.0 % of them also in gate.0"), "{shared}");
    fails(&[&args[..], &["--per-layer", "0.4,0.5"]].concat(), 2, &["trace::recipe", "decide together"]);
}

#[test]
fn traces_of_something_else_are_refused_by_name() {
    let folder = Folder::with_example();
    let trace = folder.path("x.trace");
    let generate = |spec: &str, lengths: &str| {
        succeeds(&["trace", "generate", spec, "--lengths", lengths, "--density", "0.5", "-o", &trace]);
    };
    let tokens = folder.array("t.npy", &[2, 3], &[1i32; 6]);
    let replay = ["run", &folder.artifact, "--tokens", &tokens, "--routing", &trace];
    generate("tests/golden/gumbel/spec.toml", "3,3");
    fails(&replay, 1, &["trace::model", "kjv-12l-d25"]);
    generate(SPEC, "3,2");
    fails(&replay, 1, &["trace::lengths", "3, 2", "3, 3"]);
    generate(SPEC, "3,3");
    succeeds(&replay);
    let whole = fs::read(&trace).unwrap();
    fs::write(&trace, &whole[..whole.len() - 1]).unwrap();
    fails(&replay, 1, &["trace::format"]);
    fs::write(&trace, "[model]").unwrap();
    fails(&replay, 1, &["run::routing-format"]);
    fails(&["trace", "show", SPEC], 1, &["trace::format"]);
    fails(&["trace", "show", "missing.trace"], 1, &["run::io"]);
}

#[test]
fn wrong_options_are_refused_by_name() {
    let folder = Folder::with_example();
    let trace = folder.path("x.trace");
    let generate = |more: &[&str], exit: i32, word: &str| {
        fails(&[&["trace", "generate", SPEC, "-o", &trace], more].concat(), exit, &[word]);
    };
    generate(&["--lengths", "8"], 2, "--density");
    generate(&["--density", "0.5"], 2, "--lengths");
    generate(&["--density", "0.5", "--per-layer", "0.5", "--lengths", "8"], 2, "--per-layer");
    generate(&["--density", "0.5", "--lengths", "8", "--rows", "2"], 2, "--rows");
    generate(&["--density", "1.5", "--lengths", "8"], 2, "trace::recipe");
    generate(&["--density", "NaN", "--lengths", "8"], 2, "trace::recipe");
    generate(&["--density", "0.5", "--lengths", "8", "--skew", "-1"], 2, "trace::recipe");
    generate(&["--density", "0.5", "--lengths", "8", "--skew=-1"], 2, "trace::recipe");
    generate(&["--per-layer", "0.5,0.5", "--lengths", "8"], 2, "2 densities for 9 of 9 routers");
    generate(&["--density", "0.5", "--lengths", "1025"], 1, "run::sequence-too-long");
    let args = ["trace", "generate", &folder.artifact, "-o", &trace, "--density", "0.5"];
    // A run of such a batch takes two steps.
    succeeds(&[&args[..], &["--lengths", "1000,1000"]].concat());
    fails(
        &["trace", "generate", "missing.toml", "-o", &trace, "--density", "0", "--lengths", "1"],
        1,
        &["io::file"],
    );
    fails(&["trace", "record", &folder.artifact, "-o", &trace], 2, &["--tokens"]);
    for (command, word) in
        [("record", "--tokens"), ("generate", "rank^-S"), ("show", "Routing trace"), ("", "generate")]
    {
        let help: Vec<&str> =
            ["trace", command, "--help"].into_iter().filter(|arg| !arg.is_empty()).collect();
        assert!(succeeds(&help).contains(word), "{help:?}");
    }
}

/// The page has the text, the map and the figures, and these are those of `--json`.
#[test]
fn a_trace_is_shown_as_a_page_beside_chance() {
    let folder = Folder::with_example();
    let (trace, page) = (folder.path("r.trace"), folder.path("page"));
    succeeds(&["trace", "record", &folder.artifact, "--tokens", TOKENS, "-o", &trace]);
    let args = ["trace", "show", &trace, "--html", &page, "--tokens", TOKENS, "--model", SPEC, "--json"];
    let shown: Value = serde_json::from_str(&succeeds(&args)).unwrap();
    let html = fs::read_to_string(Path::new(&page).join("index.html")).unwrap();
    let own = &shown["figures"]["trace"];
    let tokens = shown["tokens"].as_u64().unwrap();
    let count =
        |figures: &Value| figures.as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).sum::<u64>();
    assert_eq!(count(&own["depths"]), tokens);
    assert_eq!(count(&shown["figures"]["random"]["depths"]), tokens);
    assert_eq!(own["densities"].as_array().unwrap().len(), ROUTERS);
    for (router, density) in own["densities"].as_array().unwrap().iter().enumerate() {
        assert_eq!(*density, shown["routers"][router]["density"]);
    }
    // Each token stands in the text once, at its depth.
    for (depth, count) in own["depths"].as_array().unwrap().iter().enumerate() {
        let found = html.matches(&format!("title=\"{depth} of {ROUTERS}\"")).count() as u64;
        assert_eq!(found, count.as_u64().unwrap(), "{depth}");
    }
    for words in
        ["blocks.11", "Who decides alike", "What a capacity would lose", "by chance", "class=\"ran\""]
    {
        assert!(html.contains(words), "{words}");
    }
    // Tokens of another vocabulary than bytes are shown by its tokenizer.
    let words = |count: usize| -> serde_json::Map<String, Value> {
        (0..count).map(|id| (format!("w{id}"), Value::from(id))).collect()
    };
    for (name, count) in [("all", 256), ("few", 3)] {
        let model = serde_json::json!({"type": "WordLevel", "vocab": words(count), "unk_token": "w0"});
        let text = serde_json::json!({"version": "1.0", "added_tokens": [], "model": model}).to_string();
        fs::create_dir(folder.path(name)).unwrap();
        fs::write(Path::new(&folder.path(name)).join("tokenizer.json"), text).unwrap();
    }
    let show = |tokenizer: &str| -> Vec<String> {
        let tokenizer = folder.path(tokenizer);
        let named = ["--tokens", TOKENS, "--tokenizer", &tokenizer, "--model", SPEC];
        let args = [&["trace", "show", &trace, "--html", &page][..], &named].concat();
        args.into_iter().map(str::to_owned).collect()
    };
    fn of(args: &[String]) -> Vec<&str> {
        args.iter().map(String::as_str).collect()
    }
    succeeds(&of(&show("all")));
    let html = fs::read_to_string(Path::new(&page).join("index.html")).unwrap();
    assert!(html.matches("\"> w101</span>").count() > 3, "the letter e is a word here");
    fails(&of(&show("few")), 1, &["trace::tokenizer"]);

    let other = folder.array("other.npy", &[3], &[1i64, 2, 3]);
    fails(&["trace", "show", &trace, "--html", &page, "--tokens", &other], 1, &["trace::tokens"]);
    fails(
        &["trace", "show", &trace, "--html", &page, "--model", "models/mod-topk.toml"],
        1,
        &["trace::model"],
    );
}

/// The numbers of an array of bytes, with its shape.
fn read(path: &str) -> (Vec<u64>, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let file = npyz::NpyFile::new(&bytes[..]).unwrap();
    (file.shape().to_vec(), file.into_vec().unwrap())
}

/// How many tokens each choice of each layer has in PyTorch.
fn loads_in_pytorch() -> Value {
    let (shape, taken) = read(&format!("{EXPERTS}/experts.npy"));
    let (widest, layer) = (shape[3] as usize, shape[1..].iter().product::<u64>() as usize);
    let load = |layer: &[u8], choice: usize| -> u64 {
        layer.chunks_exact(widest).map(|row| u64::from(row[choice])).sum()
    };
    let layers = taken.chunks_exact(layer).zip(CHOICES);
    let loads = layers.map(|(layer, of)| (0..of).map(|choice| load(layer, choice)).collect::<Vec<_>>());
    serde_json::json!(loads.collect::<Vec<_>>())
}

#[test]
fn choices_of_experts_are_written_recorded_and_shown() {
    let folder = Folder::with_experts();
    let tokens = format!("{EXPERTS}/tokens.npy");
    let [written, recorded, again, page] =
        ["e.npy", "a.trace", "b.trace", "page"].map(|name| folder.path(name));
    let text = succeeds(&["run", &folder.artifact, "--tokens", &tokens, "--experts-out", &written]);
    assert!(text.contains("blocks.0.layers.1  ") && text.contains("times the mean"), "{text}");
    assert_eq!(read(&written), read(&format!("{EXPERTS}/experts.npy")));
    let json = succeeds(&["run", &folder.artifact, "--tokens", &tokens, "--json", "--routing-out", &again]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["run"]["experts"], loads_in_pytorch());
    assert_eq!(json["routing"]["experts"][2]["loads"], loads_in_pytorch()[2]);

    let text = succeeds(&["trace", "record", &folder.artifact, "--tokens", &tokens, "-o", &recorded]);
    assert!(text.contains("choices.2") && text.contains("7 choices, at most"), "{text}");
    assert!(fs::read(&recorded).unwrap() == fs::read(&again).unwrap(), "two ways to record one run differ");
    let spec = format!("{EXPERTS}/spec.toml");
    let args = ["trace", "show", &recorded, "--html", &page, "--model", &spec, "--json"];
    let shown: Value = serde_json::from_str(&succeeds(&args)).unwrap();
    for (layer, loads) in loads_in_pytorch().as_array().unwrap().iter().enumerate() {
        assert_eq!(shown["experts"][layer]["loads"], *loads, "layer {layer}");
    }
    let html = fs::read_to_string(Path::new(&page).join("index.html")).unwrap();
    for words in ["What experts have", "blocks.1.layers.1", "times the mean"] {
        assert!(html.contains(words), "{words}");
    }
    let example = Folder::with_example();
    let args = ["run", &example.artifact, "--tokens", TOKENS, "--experts-out", &written];
    fails(&args, 1, &["run::no-experts", "no layers of experts"]);
}

#[test]
fn choices_of_experts_replay_to_the_same_bits() {
    let folder = Folder::with_experts();
    let tokens = format!("{EXPERTS}/tokens.npy");
    let [trace, array, again] = ["a.trace", "e.npy", "again.npy"].map(|name| folder.path(name));
    let of_tokens = ["--tokens", &tokens];
    let free = folder.logits(&[&of_tokens[..], &["--routing-out", &trace, "--experts-out", &array]].concat());
    for experts in [&trace, &array] {
        let replayed =
            folder.logits(&[&of_tokens[..], &["--experts", experts, "--experts-out", &again]].concat());
        assert!(free == replayed, "a replay of {experts} differs");
        assert_eq!(read(&again), read(&array));
    }
    // Other choices change what is computed; what is missing counts 0.
    let (shape, mut taken) = read(&array);
    let size = shape[1..].iter().product::<u64>() as usize;
    taken[..7].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0]);
    let other = folder.array("other.npy", &shape, &taken);
    let replayed = folder.logits(&[&of_tokens[..], &["--experts", &other, "--experts-out", &again]].concat());
    assert!(free != replayed, "the file changes what runs");
    assert_eq!(read(&again).1[..7], taken[..7]);

    let run =
        |path: &str| ["run", &folder.artifact, "--tokens", &tokens, "--experts", path].map(str::to_owned);
    let refused = |path: &str, words: &[&str]| {
        let args = run(path);
        fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), 1, words);
    };
    let too_many = [&[1, 1, 1, 0, 0, 0, 0][..], &taken[7..]].concat();
    refused(
        &folder.array("many.npy", &shape, &too_many),
        &["run::experts-conflict", "layer 0", "token 0", "3 choices", "2"],
    );
    let mut outside = taken.clone();
    outside[size + 5] = 1;
    refused(&folder.array("outside.npy", &shape, &outside), &["0: layer 1 has 4 choices"]);
    let few = [shape[0] - 1, shape[1], shape[2], shape[3]];
    refused(&folder.array("few.npy", &few, &taken[size..]), &["[3, 2, 30, 7]"]);
}

//! The spec frontend: file cases in `tests/cases/spec`, weights, limits, and mutated specs.
//!
//! A case is `key: value` lines, an empty line, a spec, `----`, and what comes out: the resolved model, the
//! tensors, or the diagnostics. `BLESS=1 cargo test --test spec` rewrites the last part.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use skipc::diagnostic::Diagnostics;
use skipc::frontend::language::limits;
use skipc::frontend::spec::model::Model;
use skipc::frontend::spec::skip::{Capacity, Overflow};
use skipc::frontend::spec::skip_table::{Router, SkipTable};
use skipc::frontend::spec::tensors::tensors;
use skipc::frontend::spec::{self, codes};
use skipc::frontend::weights::{DType, Weights};

const EXAMPLE: &str = include_str!("../models/kjv-12l-d25.toml");

/// Columns of rendered diagnostics.
const WIDTH: usize = 100;

/// A tensor in the making: name, type, shape, bytes.
type Draft = (String, Dtype, Vec<usize>, Vec<u8>);

/// Bytes of a value in some type.
type Encode<'a> = &'a dyn Fn(f32) -> Vec<u8>;

struct Case {
    path: PathBuf,
    /// `key: value` lines.
    header: Vec<(String, String)>,
    input: String,
    expected: String,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/spec");
    let entries = fs::read_dir(folder).expect("the cases are there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    paths.sort();
    paths.into_iter().map(read_case).collect()
}

fn read_case(path: PathBuf) -> Case {
    let text = fs::read_to_string(&path).expect("cases are text");
    let shown = path.display();
    let (header, rest) =
        text.split_once("\n\n").unwrap_or_else(|| panic!("{shown}: no empty line after the header"));
    let (input, expected) = rest.split_once("\n----\n").unwrap_or_else(|| panic!("{shown}: no ---- line"));
    let header = header.lines().map(|line| {
        let (key, value) =
            line.split_once(": ").unwrap_or_else(|| panic!("{shown}: not `key: value`: {line}"));
        (key.to_owned(), value.to_owned())
    });
    let header = header.collect();
    Case { header, input: format!("{input}\n"), expected: expected.to_owned(), path }
}

impl Case {
    fn kind(&self) -> &str {
        self.header.first().filter(|(key, _)| key == "kind").map_or("", |(_, kind)| kind)
    }

    fn run(&self) -> String {
        let model = match spec::model("model.toml", &self.input) {
            Ok(model) => model,
            Err(found) => return check_codes(&found, &self.path),
        };
        match self.kind() {
            "spec" => {
                let printed = model.to_string();
                let again = spec::model("printed.toml", &printed)
                    .unwrap_or_else(|found| panic!("{found}\n{printed}"));
                assert_eq!(again, model, "{}: the printed model reads back as another", self.path.display());
                printed
            }
            "tensors" => tensors(&model).iter().fold(String::new(), |mut out, tensor| {
                writeln!(out, "{} {:?}", tensor.name, tensor.shape).expect("strings take all");
                out
            }),
            "weights" => {
                let file = weights_file(&model, &self.header[1..]);
                match Weights::from_bytes("model.safetensors", file, &model) {
                    Ok(_) => "ok\n".to_owned(),
                    Err(found) => check_codes(&found, &self.path),
                }
            }
            other => panic!("{}: no kind {other:?}", self.path.display()),
        }
    }
}

fn check_codes(found: &Diagnostics, path: &Path) -> String {
    for diagnostic in found.iter() {
        let explained = codes::explain(diagnostic.code()).is_some();
        assert!(explained, "{}: `{}` is not in spec::codes", path.display(), diagnostic.code());
    }
    found.render(WIDTH, false).lines().fold(String::new(), |out, line| out + line.trim_end() + "\n")
}

#[test]
fn cases_come_out_as_written() {
    let bless = std::env::var_os("BLESS").is_some();
    let (mut failures, mut shown) = (String::new(), String::new());
    for case in cases() {
        let got = case.run();
        shown.push_str(&got);
        if got == case.expected {
            continue;
        }
        if bless {
            let header: Vec<String> =
                case.header.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
            let text = format!("{}\n{}----\n{got}", header.concat(), case.input);
            fs::write(&case.path, text).expect("cases can be written");
        } else {
            let diff = similar::TextDiff::from_lines(&case.expected, &got);
            let diff = diff.unified_diff().header("expected", "got").to_string();
            write!(failures, "{}\n{diff}\n", case.path.display()).expect("strings take all");
        }
    }
    assert!(failures.is_empty(), "{failures}run with BLESS=1 to rewrite the cases, and read the diff");
    check_coverage(&shown);
}

fn check_coverage(shown: &str) {
    // Not of a text: tested below.
    let elsewhere = ["spec::read", "weights::index", "weights::read"];
    let listed: Vec<&str> = codes::CODES.iter().map(|(code, _)| *code).collect();
    assert!(listed.is_sorted());
    let seen: BTreeSet<&str> = shown.lines().chain(elsewhere).collect();
    let unseen: Vec<&&str> = listed.iter().filter(|code| !seen.contains(**code)).collect();
    assert!(unseen.is_empty(), "no case shows {unseen:?}");
}

// ---- limits

fn first_code(text: &str) -> &'static str {
    let found = spec::model("model.toml", text).expect_err("this spec is wrong");
    found.iter().next().expect("an error has a finding").code()
}

/// The example with one line replaced.
fn example_with(line: &str, by: &str) -> String {
    assert!(EXAMPLE.contains(line), "{line}");
    EXAMPLE.replacen(line, by, 1)
}

#[test]
fn limits_hold_at_the_border_and_beyond() {
    for (key, now, most) in [
        ("vocab_size", "vocab_size = 256", limits::WIDTH),
        ("d_model", "d_model = 128", limits::WIDTH),
        ("max_positions", "max_positions = 1024", limits::POSITIONS),
    ] {
        assert!(spec::model("m", &example_with(now, &format!("{key} = {most}"))).is_ok(), "{key} at {most}");
        for over in [most as u64 + 1, 1 << 31, 1 << 32, (1 << 63) - 1] {
            assert_eq!(
                first_code(&example_with(now, &format!("{key} = {over}"))),
                "spec::limit",
                "{key} at {over}"
            );
        }
        for beyond in ["9223372036854775808", "18446744073709551615", "1e400"] {
            let text = example_with(now, &format!("{key} = {beyond}"));
            assert!(spec::model("m", &text).is_err(), "{key} at {beyond}");
        }
        assert_eq!(first_code(&example_with(now, &format!("{key} = 0"))), "spec::out_of_range");
        assert_eq!(first_code(&example_with(now, &format!("{key} = {}", i64::MIN))), "spec::out_of_range");
    }
}

#[test]
fn stacks_are_counted_before_they_are_expanded() {
    // Four blocks of two sub-layers.
    let at = limits::LAYERS / 8;
    let model =
        spec::model("m", &example_with("repeat = 3", &format!("repeat = {at}"))).expect("at the limit");
    assert_eq!(model.blocks.len(), at * 4);
    assert_eq!(first_code(&example_with("repeat = 3", &format!("repeat = {}", at + 1))), "spec::limit");
    // A stack of many names, many times: 400 thousand names a million times would not fit.
    let names = "\"sparse\", ".repeat(80_000);
    let text =
        example_with("blocks = [", &format!("blocks = [{names}")).replacen("repeat = 3", "repeat = 4096", 1);
    assert_eq!(first_code(&text), "spec::limit");
}

#[test]
fn large_and_deep_files_are_refused() {
    let padding = "#".repeat(limits::FILE_BYTES - EXAMPLE.len());
    assert!(spec::model("m", &format!("{EXAMPLE}{padding}")).is_ok());
    assert_eq!(first_code(&format!("{EXAMPLE}{padding}#")), "spec::limit");
    for deep in
        ["[".repeat(100_000), "a = ".to_owned() + &"{ a = ".repeat(100_000), "a.".repeat(100_000) + "a = 1"]
    {
        assert_eq!(first_code(&format!("{EXAMPLE}\nx = {deep}")), "spec::syntax");
        assert_eq!(first_code(&deep), "spec::syntax");
    }
}

#[test]
fn noise_gives_a_bounded_report() {
    let keys: String = (0..60_000).fold(String::new(), |out, idx| out + &format!("key_{idx} = 1\n"));
    let names = "\"spars\", ".repeat(60_000);
    let blocks: String = (0..20_000).fold(String::new(), |out, idx| out + &format!("[block.spare_{idx}]\n"));
    let unknown = format!("{EXAMPLE}\n[block.x]\n{keys}");
    let unnamed = example_with("blocks = [", &format!("blocks = [{names}")) + &blocks;
    for text in [unknown, unnamed] {
        let found = spec::model("m", &text).expect_err("all wrong");
        assert!(found.iter().count() == 100 && found.left_off() > 10_000);
        assert!(found.render(WIDTH, false).len() < 200_000);
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let code = |found: Diagnostics| found.iter().next().expect("a finding").code();
    let absent = folder.path().join("absent");
    assert_eq!(code(spec::load(&absent).expect_err("absent")), "spec::read");
    assert_eq!(code(spec::load(folder.path()).expect_err("a folder")), "spec::read");
    let model = spec::model("m", EXAMPLE).expect("the example");
    assert_eq!(code(Weights::open(&absent, &model).err().expect("absent")), "weights::read");
    assert_eq!(code(Weights::open(folder.path(), &model).err().expect("a folder")), "weights::read");
    let noise = folder.path().join("noise");
    fs::write(&noise, b"[model]\nname = \"\xff\"").expect("a writable folder");
    assert_eq!(code(spec::load(&noise).expect_err("not UTF-8")), "spec::syntax");
    fs::write(&noise, vec![b'#'; limits::FILE_BYTES + 1]).expect("a writable folder");
    assert_eq!(code(spec::load(&noise).expect_err("large")), "spec::limit");
    let wanted = folder.path().join("model.toml");
    fs::write(&wanted, EXAMPLE).expect("a writable folder");
    assert_eq!(spec::load(&wanted).expect("the example"), model);
}

// ---- the model

#[test]
fn capacity_is_rounded_up_and_no_more_than_the_group() {
    let slots = |group_size, density, factor| {
        Capacity { group_size, factor, overflow: Overflow::Position }.slots(density)
    };
    assert_eq!(slots(64, 0.25, 1.25), 20);
    assert_eq!(slots(10, 0.25, 1.25), 4);
    assert_eq!(slots(10, 0.0, 1.25), 0);
    assert_eq!(slots(10, 1.0, 1e6), 10);
    // 10 · 0.1 · 3 is a little more than 3 only if the products are taken in another order.
    assert_eq!(slots(10, 0.1, 3.0), 3);
    assert_eq!(SkipTable::of_router(Router::Gumbel).skip().capacity(), None);
    let skip = SkipTable { group_size: 8, ..SkipTable::of_router(Router::Random) }.skip();
    let capacity = skip.capacity().expect("a capacity");
    assert_eq!(capacity, Capacity { group_size: 8, factor: 1.25, overflow: Overflow::Position });
    assert_eq!(capacity.slots(skip.density), 5);
}

#[test]
fn findings_and_models_serialise() {
    let found = spec::model("m.toml", "[model]\nnmae = \"x\"\n").expect_err("wrong");
    let json = serde_json::to_value(&found).expect("plain data");
    let first = &json["errors"][0];
    assert_eq!(first["code"], "spec::unknown_key");
    assert_eq!(first["help"], "did you mean `name`?");
    assert_eq!(
        (&first["file"], &first["labels"][0]["line"], &first["labels"][0]["column"]),
        (&"m.toml".into(), &2.into(), &1.into())
    );
    let model = spec::model("m.toml", EXAMPLE).expect("the example");
    let json = serde_json::to_value(&model).expect("plain data");
    assert_eq!(json["positions"], serde_json::json!({ "kind": "rope", "theta": 10000.0 }));
    assert_eq!(json["blocks"][1]["skip"]["router"], "gumbel");
    assert_eq!(
        json["blocks"][1]["layers"][1],
        serde_json::json!({ "kind": "ffn", "d_ff": 384, "activation": "swiglu", "bias": false, "skip": null })
    );
}

// ---- weights

/// A file with all tensors of the model, ones in bf16, after the `edit` lines of a case.
fn weights_file(model: &Model, edits: &[(String, String)]) -> Vec<u8> {
    let one = half::bf16::ONE.to_le_bytes();
    let draft = |name: String, shape: Vec<usize>| -> Draft {
        let bytes = one.repeat(shape.iter().product());
        (name, Dtype::BF16, shape, bytes)
    };
    let mut drafts: Vec<Draft> =
        tensors(model).into_iter().map(|tensor| draft(tensor.name, tensor.shape)).collect();
    for (key, edit) in edits.iter().filter(|(key, _)| key == "edit") {
        let words: Vec<&str> = edit.split_whitespace().collect();
        let found = |name: &str| {
            drafts.iter().position(|draft| draft.0 == name).unwrap_or_else(|| panic!("{key}: {edit}"))
        };
        let shape = |words: &[&str]| {
            words.iter().map(|word| word.parse().expect("an extent")).collect::<Vec<usize>>()
        };
        match words.as_slice() {
            ["drop", name] => drop(drafts.remove(found(name))),
            ["rename", name, new] => {
                let at = found(name);
                drafts[at].0 = (*new).to_owned()
            }
            ["add", name, extents @ ..] => drafts.push(draft((*name).to_owned(), shape(extents))),
            ["shape", name, extents @ ..] => {
                let at = found(name);
                drafts[at] = draft((*name).to_owned(), shape(extents))
            }
            ["f64", name] => {
                let at = found(name);
                let bytes = one.repeat(drafts[at].3.len() * 2);
                drafts[at] = (drafts[at].0.clone(), Dtype::F64, drafts[at].2.clone(), bytes);
            }
            ["bits", name, idx, bits] => {
                let (at, idx) = (found(name), idx.parse::<usize>().expect("an index"));
                let bits = u16::from_str_radix(bits, 16).expect("four hexadecimal digits");
                drafts[at].3[idx * 2..idx * 2 + 2].copy_from_slice(&bits.to_le_bytes());
            }
            _ => panic!("no edit {edit:?}"),
        }
    }
    let views = drafts.iter().map(|(name, dtype, shape, bytes)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor"))
    });
    let mut file = safetensors::serialize(views, None).expect("a file");
    for (key, value) in edits {
        match key.as_str() {
            "edit" => (),
            "cut" => file.truncate(value.parse().expect("a length")),
            "cut-end" => file.truncate(file.len() - value.parse::<usize>().expect("a length")),
            "append" => file.extend_from_slice(value.as_bytes()),
            "length" => file[..8].copy_from_slice(&value.parse::<u64>().expect("a length").to_le_bytes()),
            "header" => file = [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat(),
            _ => panic!("no header line {key:?}"),
        }
    }
    file
}

#[test]
fn the_example_has_its_weights() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let model = spec::load(&root.join("kjv-12l-d25.toml")).expect("the example");
    let weights = Weights::open(&root.join("kjv-12l-d25.safetensors"), &model).expect("its weights");
    let router = weights.tensor("blocks.1.router.weight").expect("a router");
    assert_eq!((router.dtype, router.shape, router.bytes.len()), (DType::Bf16, &[2, 128][..], 512));
    let values = router.to_f32();
    assert!(values.len() == 256 && values.iter().any(|value| *value != 0.0));
    assert!(weights.tensor("blocks.0.router.weight").is_err());
    assert_eq!(
        tensors(&model).iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum::<usize>(),
        2_397_568
    );
}

#[test]
fn all_three_types_are_read_exactly() {
    let model = spec::model("m", TINY).expect("a model");
    let values = [1.0f32, -0.5, 65504.0, 6.103_515_6e-5];
    let spread = |shape: &[usize], encode: Encode<'_>| -> Vec<u8> {
        (0..shape.iter().product()).flat_map(|idx: usize| encode(values[idx % values.len()])).collect()
    };
    let encodings: [(Dtype, DType, Encode<'_>); 3] = [
        (Dtype::F32, DType::F32, &|value| value.to_le_bytes().to_vec()),
        (Dtype::BF16, DType::Bf16, &|value| half::bf16::from_f32(value).to_le_bytes().to_vec()),
        (Dtype::F16, DType::F16, &|value| half::f16::from_f32(value).to_le_bytes().to_vec()),
    ];
    for (stored, dtype, encode) in encodings {
        let wanted = tensors(&model);
        let drafts: Vec<(String, Vec<usize>, Vec<u8>)> = wanted
            .into_iter()
            .map(|tensor| (tensor.name, tensor.shape.clone(), spread(&tensor.shape, encode)))
            .collect();
        let views = drafts.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(stored, shape.clone(), bytes).expect("a tensor"))
        });
        let file = safetensors::serialize(views, None).expect("a file");
        let weights = Weights::from_bytes("w", file, &model).expect("right weights");
        for tensor in tensors(&model) {
            let read = weights.tensor(&tensor.name).expect("all are there");
            assert_eq!((read.dtype, read.shape), (dtype, &*tensor.shape));
            let got = read.to_f32();
            assert_eq!(got.len(), tensor.shape.iter().product::<usize>());
            let rounded =
                |value: f32| if dtype == DType::Bf16 { half::bf16::from_f32(value).to_f32() } else { value };
            assert!(got.iter().enumerate().all(|(idx, value)| *value == rounded(values[idx % values.len()])));
        }
    }
}

const TINY: &str = r#"
[model]
name = "tiny"
vocab_size = 5
d_model = 4
max_positions = 8
[block.a]
skip = { router = "sigmoid", bias = true }
layers = [{ kind = "attention", heads = 2 }, { kind = "ffn", d_ff = 6 }]
[[stack]]
blocks = ["a"]
"#;

#[test]
fn a_name_that_comes_twice_is_an_error() {
    let model = spec::model("m", TINY).expect("a model");
    let row = r#""embed.weight":{"dtype":"F32","shape":[5,4],"data_offsets":[0,80]}"#;
    let text = format!("{{{row},{row}}}");
    let file = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &[0; 80]].concat();
    let found = Weights::from_bytes("w", file, &model).err().expect("two rows of one name");
    assert!(found.to_string().contains("duplicate key `embed.weight`"), "{found}");
}

/// The tensors of a model in two files, with the index that says which is where.
fn sharded(
    folder: &Path,
    model: &spec::model::Model,
    edit: impl Fn(&mut serde_json::Value),
) -> std::path::PathBuf {
    let weights = Weights::drawn(model, 3).expect("random weights");
    let mut map = serde_json::Map::new();
    for (idx, file) in ["a.safetensors", "b.safetensors"].into_iter().enumerate() {
        let mine: Vec<String> =
            weights.sizes().map(|(name, _)| name.to_owned()).skip(idx).step_by(2).collect();
        let read: Vec<_> = mine.iter().map(|name| weights.tensor(name).expect("it is listed")).collect();
        let views = mine.iter().zip(&read).map(|(name, tensor)| {
            (name, TensorView::new(Dtype::F32, tensor.shape.to_vec(), &tensor.bytes).expect("a tensor"))
        });
        fs::write(folder.join(file), safetensors::serialize(views, None).expect("a file")).expect("a folder");
        map.extend(mine.iter().map(|name| (name.clone(), file.into())));
    }
    let mut index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
    edit(&mut index);
    let path = folder.join("model.safetensors.index.json");
    fs::write(&path, index.to_string()).expect("a folder");
    path
}

#[test]
fn shards_are_the_same_weights_as_one_file() {
    let model = spec::model("m", TINY).expect("a model");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = sharded(folder.path(), &model, |_| ());
    let one = Weights::drawn(&model, 3).expect("random weights");
    let several = Weights::open(&path, &model).map_err(|found| found.to_string()).expect("both files");
    assert_eq!(several.content_hash(), one.content_hash());
    for (name, _) in one.sizes() {
        assert_eq!(several.tensor(name).expect("all").bytes, one.tensor(name).expect("all").bytes, "{name}");
    }
    type Edit = fn(&mut serde_json::Value);
    let wrong: [Edit; 5] = [
        |index| index["weight_map"]["embed.weight"] = "b.safetensors".into(),
        |index| index["weight_map"]["embed.weight"] = "../a.safetensors".into(),
        |index| index["weight_map"]["more"] = "a.safetensors".into(),
        |index| drop(index["weight_map"].as_object_mut().map(|map| map.remove("embed.weight"))),
        |index| *index = serde_json::json!([1]),
    ];
    for edit in wrong {
        let path = sharded(folder.path(), &model, edit);
        let found = Weights::open(&path, &model).err().expect("a wrong index");
        assert!(found.iter().any(|diagnostic| diagnostic.code() == "weights::index"), "{found:?}");
    }
}

#[test]
fn hostile_headers_cost_nothing() {
    let model = spec::model("m", TINY).expect("a model");
    // A terabyte that is not there, and a header as large as may be.
    let huge = r#"{"embed.weight":{"dtype":"F32","shape":[500000000000],"data_offsets":[0,2000000000000]}}"#;
    let file = [&(huge.len() as u64).to_le_bytes(), huge.as_bytes()].concat();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("huge.safetensors");
    fs::write(&path, &file).expect("a writable folder");
    assert!(Weights::open(&path, &model).is_err());
    // As long as it says, though there is a hole instead of a tensor: its shape is refused before it is read.
    let sparse = fs::OpenOptions::new().write(true).open(&path).expect("it was made above");
    if sparse.set_len(file.len() as u64 + 2_000_000_000_000).is_ok() {
        let found = Weights::open(&path, &model).err().expect("not the model's tensors");
        assert!(found.iter().any(|diagnostic| diagnostic.code() == "weights::shape"), "{found:?}");
    }
    let rows: Vec<String> = (0..100_000)
        .map(|idx| {
            format!(r#""blocks.{idx}.router.weight":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#)
        })
        .collect();
    let many = format!("{{{}}}", rows.join(","));
    let file = [&(many.len() as u64).to_le_bytes(), many.as_bytes()].concat();
    let found = Weights::from_bytes("w", file, &model).err().expect("none of them is right");
    assert!(found.left_off() > 99_000);
}

// ---- noise

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes cut, put in and changed anywhere in the example give a model or findings, both of which print.
    #[test]
    fn mutated_specs_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..8)) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
            // So that there is a place for the next edit.
            bytes.push(b'\n');
        }
        outcome(&String::from_utf8_lossy(&bytes));
    }

    /// Whole words of specs exchanged for others: most results are TOML, and wrong in meaning.
    #[test]
    fn exchanged_words_never_panic(swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6)) {
        const SPARE: &[&str] = &[
            "0", "-1", "1e-9", "nan", "inf", "true", "\"topk\"", "\"highway\"", "\"scaled\"", "[]", "{}", "2020-01-01", "repeat",
            "skip", "\"entry\"", "\"learned\"", "7", "1048577", "9223372036854775807", "group_size", "density", "threshold", "generate",
        ];
        let mut words: Vec<&str> = EXAMPLE.split_inclusive([' ', '\n', ',']).collect();
        let spares: Vec<String> = SPARE.iter().map(|word| format!("{word} ")).collect();
        for (at, from) in swaps {
            let at = at.index(words.len());
            words[at] = &spares[from.index(spares.len())];
        }
        outcome(&words.concat());
    }

    /// Bytes changed anywhere in a file of weights.
    #[test]
    fn mutated_weights_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6)) {
        let model = spec::model("m", TINY).expect("a model");
        let mut file = weights_file(&model, &[]);
        for (at, byte, how) in edits {
            // Mostly in the header: the data is only numbers.
            let at = at.index(file.len().min(1200));
            match how {
                0 | 1 => file[at] = byte,
                2 => file.insert(at, byte),
                _ => drop(file.remove(at)),
            }
        }
        if let Err(found) = Weights::from_bytes("w", file, &model) {
            prop_assert!(!found.render(WIDTH, false).is_empty());
        }
    }
}

/// Renders whatever comes out; a model must print as a spec of the same model.
fn outcome(text: &str) {
    match spec::model("noise", text) {
        Ok(model) => {
            let again =
                spec::model("printed", &model.to_string()).unwrap_or_else(|found| panic!("{found}\n{model}"));
            assert_eq!(again, model);
            let names: BTreeSet<String> = tensors(&model).into_iter().map(|tensor| tensor.name).collect();
            assert_eq!(names.len(), tensors(&model).len());
        }
        Err(found) => assert!(!found.is_empty() && !found.render(WIDTH, false).is_empty()),
    }
}

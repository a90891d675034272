//! From the text of a training configuration to its settings, with every finding collected.

use std::path::{Path, PathBuf};

use super::{
    Config, Data, Distill, Dtype, From, Init, Optimizer, OptimizerKind, Patterns, Ramp, Schedule,
    ScheduleKind, Ste, Train,
};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::frontend::language::ast::{self, Entry, Table, ValueKind};
use crate::frontend::language::limits;
use crate::frontend::language::read::{Ctx, Fields};
use crate::frontend::language::words::{Word, words};

const ROOT_KEYS: &[&str] = &["train", "optimizer", "schedule", "data", "init", "distill"];
const TRAIN_KEYS: &[&str] = &[
    "steps",
    "batch",
    "seq",
    "seed",
    "microbatch",
    "dtype",
    "ste",
    "aux_weight",
    "noise",
    "temperature",
    "clip",
    "train",
    "freeze",
];
const RAMP_KEYS: &[&str] = &["from", "to", "steps"];
const ADAMW_KEYS: &[&str] = &["kind", "lr", "betas", "eps", "weight_decay", "no_decay"];
const ADAFACTOR_KEYS: &[&str] = &[
    "kind",
    "lr",
    "weight_decay",
    "no_decay",
    "beta2",
    "eps1",
    "eps2",
    "update_clip",
    "scale_parameter",
    "factor_from",
];
const DATA_KEYS: &[&str] = &["text", "tokens", "lengths", "tokenizer", "order", "validation"];
const INIT_KEYS: &[&str] = &["std", "missing"];
const DISTILL_KEYS: &[&str] = &["spec", "weights", "weight", "temperature"];

const TRAIN_EXAMPLE: &str = "[train]\nsteps = 1500\nbatch = 8\nseq = 256";
const DATA_EXAMPLE: &str = "[data]\ntext = \"text.txt\"";

/// Rows of a batch, as the place of a draw has room for.
const MAX_ROWS: usize = 1 << 16;

/// Steps of a run: what f64 counts exactly and i64 holds.
const MAX_STEPS: usize = 1 << 40;

/// Optimisers without their settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OptimizerWord {
    AdamW,
    Adafactor,
}

/// Schedules without their settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScheduleWord {
    Constant,
    Cosine,
    InverseSqrt,
}

words! {
    OptimizerWord { AdamW = "adamw", Adafactor = "adafactor" }
    ScheduleWord { Constant = "constant", Cosine = "cosine", InverseSqrt = "inverse_sqrt" }
}

/// Reads a training configuration. `name` is what users call the file, and `folder` what paths in it are relative to.
///
/// # Errors
/// All that is wrong with it, each with its place.
pub fn read(name: &str, text: &str, folder: &Path) -> Result<Config, Diagnostics> {
    let ast = ast::parse(name, text)?;
    let mut ctx = Ctx::new(&ast);
    let root = Fields { table: &ast.root, what: "a training configuration", keys: ROOT_KEYS };
    ctx.check_keys(root, |key| {
        let home = [("[train]", TRAIN_KEYS), ("[data]", DATA_KEYS), ("[optimizer]", ADAMW_KEYS)];
        let (table, _) = home.into_iter().find(|(_, keys)| keys.contains(&key))?;
        Some(format!("write it under `{table}`"))
    });
    let empty = Table { span: 0..0, entries: Vec::new() };
    let table = |ctx: &mut Ctx<'_>, key: &str| match ast.root.get(key) {
        Some(entry) => ctx.table(key, &entry.value, &format!("[{key}]")).cloned(),
        None => Some(empty.clone()),
    };
    let train = ctx.required(root, "train", TRAIN_EXAMPLE).and_then(|_| table(&mut ctx, "train"));
    let train = train.and_then(|table| train_table(&mut ctx, &table));
    let optimizer = table(&mut ctx, "optimizer").and_then(|table| optimizer_table(&mut ctx, &table));
    let schedule = table(&mut ctx, "schedule").and_then(|table| schedule_table(&mut ctx, &table));
    let data = ctx.required(root, "data", DATA_EXAMPLE).and_then(|_| table(&mut ctx, "data"));
    let data = data.and_then(|table| data_table(&mut ctx, &table, folder));
    let init = table(&mut ctx, "init").and_then(|table| init_table(&mut ctx, &table));
    let distill = match ast.root.get("distill") {
        None => Some(None),
        Some(_) => {
            table(&mut ctx, "distill").and_then(|table| distill_table(&mut ctx, &table, folder)).map(Some)
        }
    };
    let config = (|| {
        Some(Config {
            train: train?,
            optimizer: optimizer?,
            schedule: schedule?,
            data: data?,
            init: init?,
            distill: distill?,
        })
    })();
    match config {
        Some(config) => ctx.found.or(config),
        None => Err(ctx.found),
    }
}

fn number_from(least: f64) -> (String, impl Fn(f64) -> bool) {
    (format!("from {least:?} on"), move |number| number >= least)
}

/// A number that is not negative.
fn amount(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<f64> {
    let (range, holds) = number_from(0.0);
    ctx.number(entry, &range, holds)
}

/// A number above 0.
fn positive(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<f64> {
    ctx.number(entry, "above 0.0", |number| number > 0.0)
}

/// A number in `[0, 1)`.
fn decay(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<f64> {
    ctx.number(entry, "from 0.0 to below 1.0", |number| (0.0..1.0).contains(&number))
}

/// A number in `[0, 1]`.
fn share(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<f64> {
    ctx.number(entry, "from 0.0 to 1.0", |number| (0.0..=1.0).contains(&number))
}

fn steps(ctx: &mut Ctx<'_>, entry: &Entry, least: usize) -> Option<u64> {
    ctx.count(entry, least..=MAX_STEPS).map(|steps| steps as u64)
}

fn train_table(ctx: &mut Ctx<'_>, table: &Table) -> Option<Train> {
    let fields = Fields { table, what: "`[train]`", keys: TRAIN_KEYS };
    ctx.check_keys(fields, |_| None);
    let n_steps = ctx.required(fields, "steps", "steps = 1500").and_then(|entry| steps(ctx, entry, 1));
    let batch = ctx.required(fields, "batch", "batch = 8").and_then(|entry| ctx.count(entry, 1..=MAX_ROWS));
    let seq =
        ctx.required(fields, "seq", "seq = 256").and_then(|entry| ctx.count(entry, 1..=limits::POSITIONS));
    let seed = ctx.optional(fields, "seed", 0, Ctx::seed);
    let microbatch = ctx.optional(fields, "microbatch", 0, |ctx, entry| ctx.count(entry, 0..=MAX_ROWS));
    let dtype = ctx.optional(fields, "dtype", Dtype::F32, Ctx::word);
    let ste = ctx.optional(fields, "ste", Ste::Dense, Ctx::word);
    let aux_weight = ctx.optional(fields, "aux_weight", 0.1, amount);
    let noise = ctx.optional(fields, "noise", Ramp::constant(1.0), |ctx, entry| ramp(ctx, entry, amount));
    let temperature =
        ctx.optional(fields, "temperature", Ramp::constant(1.0), |ctx, entry| ramp(ctx, entry, positive));
    let clip = ctx.optional(fields, "clip", 1.0, amount);
    let train = ctx.optional(fields, "train", Patterns::of(&["*"]), patterns);
    let freeze = ctx.optional(fields, "freeze", Patterns::of(&[]), patterns);
    Some(Train {
        steps: n_steps?,
        batch: batch?,
        seq: seq?,
        seed: seed?,
        microbatch: microbatch?,
        dtype: dtype?,
        ste: ste?,
        aux_weight: aux_weight?,
        noise: noise?,
        temperature: temperature?,
        clip: clip?,
        train: train?,
        freeze: freeze?,
    })
}

/// A number, or `{ from, to, steps }`.
fn ramp(
    ctx: &mut Ctx<'_>,
    entry: &Entry,
    read: impl Fn(&mut Ctx<'_>, &Entry) -> Option<f64>,
) -> Option<Ramp> {
    let ValueKind::Table(table) = &entry.value.kind else { return read(ctx, entry).map(Ramp::constant) };
    let fields = Fields { table, what: "a number that changes over steps", keys: RAMP_KEYS };
    ctx.check_keys(fields, |_| None);
    let from = ctx.required(fields, "from", "from = 1.0").and_then(|entry| read(ctx, entry));
    let to = ctx.required(fields, "to", "to = 0.1").and_then(|entry| read(ctx, entry));
    let n_steps = ctx.required(fields, "steps", "steps = 600").and_then(|entry| steps(ctx, entry, 1));
    Some(Ramp { from: from?, to: to?, steps: n_steps? })
}

/// A list of patterns over names of tensors; it may be empty.
fn patterns(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<Patterns> {
    let wrong = |ctx: &mut Ctx<'_>, value: &ast::Value| {
        let message = format!("`{}` wants patterns over names of tensors", entry.key);
        let help = format!("write a list of strings, such as `{} = [\"*.router.*\"]`", entry.key);
        ctx.wrong("spec::wrong_type", message, (value, "no string in a list"), help);
    };
    let ValueKind::List(list) = &entry.value.kind else {
        wrong(ctx, &entry.value);
        return None;
    };
    let mut found = Vec::new();
    for value in list {
        let ValueKind::Text(text) = &value.kind else {
            wrong(ctx, value);
            return None;
        };
        found.push(text.clone());
    }
    Some(Patterns(found))
}

fn optimizer_table(ctx: &mut Ctx<'_>, table: &Table) -> Option<Optimizer> {
    let any = Fields { table, what: "`[optimizer]`", keys: &[] };
    let word = ctx.optional(any, "kind", OptimizerWord::AdamW, Ctx::word)?;
    let keys = match word {
        OptimizerWord::AdamW => ADAMW_KEYS,
        OptimizerWord::Adafactor => ADAFACTOR_KEYS,
    };
    let fields = Fields { table, what: "this optimiser", keys };
    ctx.check_keys(fields, |key| {
        let all = [(OptimizerWord::AdamW, ADAMW_KEYS), (OptimizerWord::Adafactor, ADAFACTOR_KEYS)];
        let (other, _) = all.into_iter().find(|(other, keys)| *other != word && keys.contains(&key))?;
        Some(format!("it belongs to `kind = \"{}\"`", other.word()))
    });
    let lr = ctx.optional(fields, "lr", 1e-3, positive);
    let weight_decay = ctx.optional(fields, "weight_decay", 0.0, amount);
    let no_decay = Patterns::of(&["*norm*", "*.bias", "*router*"]);
    let no_decay = ctx.optional(fields, "no_decay", no_decay, patterns);
    let kind = match word {
        OptimizerWord::AdamW => {
            let betas = ctx.optional(fields, "betas", [0.9, 0.95], betas);
            let eps = ctx.optional(fields, "eps", 1e-8, positive);
            OptimizerKind::AdamW { betas: betas?, eps: eps? }
        }
        OptimizerWord::Adafactor => adafactor(ctx, fields)?,
    };
    Some(Optimizer { lr: lr?, weight_decay: weight_decay?, no_decay: no_decay?, kind })
}

fn adafactor(ctx: &mut Ctx<'_>, fields: Fields<'_>) -> Option<OptimizerKind> {
    let beta2 = ctx.optional(fields, "beta2", 0.99, decay);
    let eps1 = ctx.optional(fields, "eps1", 1e-30, positive);
    let eps2 = ctx.optional(fields, "eps2", 1e-3, positive);
    let update_clip = ctx.optional(fields, "update_clip", 1.0, positive);
    let scale_parameter = ctx.optional(fields, "scale_parameter", true, Ctx::flag);
    let factor_from =
        ctx.optional(fields, "factor_from", 128, |ctx, entry| ctx.count(entry, 1..=limits::WIDTH));
    Some(OptimizerKind::Adafactor {
        beta2: beta2?,
        eps1: eps1?,
        eps2: eps2?,
        update_clip: update_clip?,
        scale_parameter: scale_parameter?,
        factor_from: factor_from?,
    })
}

fn betas(ctx: &mut Ctx<'_>, entry: &Entry) -> Option<[f64; 2]> {
    if let ValueKind::List(list) = &entry.value.kind
        && let [first, second] = list.as_slice()
    {
        let one = |ctx: &mut Ctx<'_>, value: &ast::Value| {
            let (key, key_span) = (entry.key.clone(), entry.key_span.clone());
            decay(ctx, &Entry { key, key_span, value: value.clone() })
        };
        let (first, second) = (one(ctx, first), one(ctx, second));
        return Some([first?, second?]);
    }
    let message = "`betas` wants two numbers".to_owned();
    let help = "write `betas = [0.9, 0.95]`".to_owned();
    ctx.wrong("spec::wrong_type", message, (&entry.value, "no list of two numbers"), help);
    None
}

fn schedule_table(ctx: &mut Ctx<'_>, table: &Table) -> Option<Schedule> {
    let any = Fields { table, what: "`[schedule]`", keys: &[] };
    let word = ctx.optional(any, "kind", ScheduleWord::Constant, Ctx::word)?;
    let keys: &[&str] = match word {
        ScheduleWord::Constant => &["kind", "warmup"],
        ScheduleWord::Cosine => &["kind", "warmup", "floor"],
        ScheduleWord::InverseSqrt => &["kind", "warmup", "hold"],
    };
    let fields = Fields { table, what: "this schedule", keys };
    ctx.check_keys(fields, |key| match key {
        "floor" => Some("it belongs to `kind = \"cosine\"`".to_owned()),
        "hold" => Some("it belongs to `kind = \"inverse_sqrt\"`".to_owned()),
        _ => None,
    });
    let warmup = ctx.optional(fields, "warmup", 0, |ctx, entry| steps(ctx, entry, 0));
    let kind = match word {
        ScheduleWord::Constant => ScheduleKind::Constant,
        ScheduleWord::Cosine => ScheduleKind::Cosine { floor: ctx.optional(fields, "floor", 0.0, share)? },
        ScheduleWord::InverseSqrt => {
            let hold = ctx.optional(fields, "hold", 10_000, |ctx, entry| steps(ctx, entry, 1));
            ScheduleKind::InverseSqrt { hold: hold? }
        }
    };
    Some(Schedule { warmup: warmup?, kind })
}

/// A path, relative to the folder of the file.
fn path(ctx: &mut Ctx<'_>, entry: &Entry, folder: &Path) -> Option<PathBuf> {
    match &entry.value.kind {
        ValueKind::Text(text) if !text.is_empty() => Some(folder.join(text)),
        _ => {
            let message = format!("`{}` wants the path of a file", entry.key);
            let help = format!("write `{} = \"…\"`, relative to this file", entry.key);
            ctx.wrong("spec::wrong_type", message, (&entry.value, "no path"), help);
            None
        }
    }
}

fn data_table(ctx: &mut Ctx<'_>, table: &Table, folder: &Path) -> Option<Data> {
    let fields = Fields { table, what: "`[data]`", keys: DATA_KEYS };
    ctx.check_keys(fields, |_| None);
    let file = |ctx: &mut Ctx<'_>, key: &str| {
        ctx.optional(fields, key, None, |ctx, entry| path(ctx, entry, folder).map(Some))
    };
    let (text, tokens) = (file(ctx, "text"), file(ctx, "tokens"));
    let (lengths, tokenizer) = (file(ctx, "lengths"), file(ctx, "tokenizer"));
    let order = ctx.optional(fields, "order", None, |ctx, entry| ctx.word(entry).map(Some));
    let validation = ctx.optional(fields, "validation", 0.0, decay);
    let from = match (text?, tokens?, lengths?, tokenizer?) {
        (Some(text), None, None, tokenizer) => From::Text { text, tokenizer },
        (None, Some(tokens), lengths, None) => From::Tokens { tokens, lengths },
        (None, None, ..) => {
            let message = "`[data]` names nothing to train on";
            let found = Diagnostic::new("spec::missing_key", message)
                .at(ctx.source, table.span.clone(), "`text` or `tokens` is missing")
                .help("add, for example, `text = \"text.txt\"`, or `tokens = \"tokens.npy\"`");
            ctx.report(found);
            return None;
        }
        (text, ..) => {
            let key = if text.is_some() { ["tokens", "lengths"] } else { ["tokenizer", "text"] };
            let entry = key.into_iter().find_map(|key| table.get(key))?;
            let message = format!("`{}` cannot stand here", entry.key);
            let help = "write `text` (and `tokenizer`), or `tokens` (and `lengths`)".to_owned();
            ctx.wrong("spec::bad_value", message, (&entry.value, "contradicts the other keys"), help);
            return None;
        }
    };
    Some(Data { from, order: order?, validation: validation? })
}

fn init_table(ctx: &mut Ctx<'_>, table: &Table) -> Option<Init> {
    let fields = Fields { table, what: "`[init]`", keys: INIT_KEYS };
    ctx.check_keys(fields, |_| None);
    let std = ctx.optional(fields, "std", 0.02, positive);
    let missing = ctx.optional(fields, "missing", Patterns::of(&[]), patterns);
    Some(Init { std: std?, missing: missing? })
}

fn distill_table(ctx: &mut Ctx<'_>, table: &Table, folder: &Path) -> Option<Distill> {
    let fields = Fields { table, what: "`[distill]`", keys: DISTILL_KEYS };
    ctx.check_keys(fields, |_| None);
    let spec = ctx.required(fields, "spec", "spec = \"teacher.toml\"");
    let spec = spec.and_then(|entry| path(ctx, entry, folder));
    let weights = ctx.required(fields, "weights", "weights = \"teacher.safetensors\"");
    let weights = weights.and_then(|entry| path(ctx, entry, folder));
    let weight = ctx.optional(fields, "weight", 0.5, share);
    let temperature = ctx.optional(fields, "temperature", 1.0, positive);
    Some(Distill { spec: spec?, weights: weights?, weight: weight?, temperature: temperature? })
}

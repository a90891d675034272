//! `skipc trace`: decisions recorded from a run or generated, as a file that every backend replays.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use skipc_artifact::bundle;
use skipc_artifact::program::{Function, SCORE};
use skipc_artifact::reader::Sections;
use skipc_artifact::regular;
use skipc_artifact::section::ContentHash;
use skipc_ir::{Graph, Op, Value};
use skipc_runtime::choices::{self, Choices};
use skipc_runtime::command::{self, RunArgs};
use skipc_runtime::decode::{Bytes, LanguageFiles, TextStream, Tokenizer};
use skipc_runtime::inputs::{Room, Sequences};
use skipc_runtime::trace::{self, Decider, DecisionSource, Provenance, Recipe};
use skipc_runtime::words::counted;
use skipc_runtime::{Batch, Trace};

use super::{GenerateArgs, RecordArgs, ShowArgs, TraceCommand, open_index, shares, to_json};
use crate::diagnostic::Diagnostic;
use crate::driver::original::model_of;
use crate::driver::pipeline::{self, Request};
use crate::error::{Error, ErrorKind};
use crate::frontend::source::Source;
use crate::frontend::spec::model::Model as SpecModel;
use crate::report::html as pages;
use crate::report::routing::{Comparison, html};

pub(super) fn run(command: &TraceCommand, json: bool) -> Result<String, Error> {
    match command {
        TraceCommand::Record(args) => write(&record(args)?, &args.output, json),
        TraceCommand::Generate(args) => write(&generate(args)?, &args.output, json),
        TraceCommand::Show(args) => show(args, json),
    }
}

fn show(args: &ShowArgs, json: bool) -> Result<String, Error> {
    let trace = Trace::read(&args.trace)?;
    let shown = Shown::of(&trace);
    let figures = (json || args.html.is_some()).then(|| Comparison::of(&trace)).transpose()?;
    if let Some((dir, figures)) = args.html.as_ref().zip(figures.as_ref()) {
        let model = args.model.as_deref().map(|path| model(path, &trace)).transpose()?;
        let tokens = args.tokens.as_deref();
        let texts = tokens.map(|tokens| texts(args, (&trace, model.as_ref()), tokens)).transpose()?;
        let about = html::About {
            source: in_words(&trace.provenance.source),
            routers: model.as_ref().map(shares::names).unwrap_or_default(),
            experts: model.as_ref().map(shares::names_of_experts).unwrap_or_default(),
            texts: texts.as_deref(),
        };
        pages::write(dir, &[("index.html".to_owned(), html::html(&trace, figures, &about))])?;
    }
    if !json {
        return shown.print(false);
    }
    let mut all = serde_json::to_value(&shown).map_err(|error| Error::internal("json::write", &error))?;
    all["figures"] = serde_json::json!(figures);
    to_json(&all)
}

/// The text of each token: the characters that it completes, or its number where nothing says which text tokens are.
fn texts(
    args: &ShowArgs,
    (trace, model): (&Trace, Option<&SpecModel>),
    tokens: &Path,
) -> Result<Vec<String>, Error> {
    let sequences = Sequences::read(tokens, args.lengths.as_deref(), Room::Corpus)?;
    let ids = &sequences.tokens;
    let mut is_own = ids.len() as u64 == trace.n_tokens();
    if let DecisionSource::Recorded(run) = &trace.provenance.source {
        let bytes: Vec<u8> = ids.iter().flat_map(|token| token.to_le_bytes()).collect();
        is_own = run.tokens_hash == ContentHash::of(&bytes);
    }
    if !is_own {
        let message = format!("{}: the trace is of other tokens", tokens.display());
        let help = "give the tokens, and lengths, of the run that was recorded";
        return Err(Diagnostic::new("trace::tokens", message).help(help).into());
    }
    let Some(tokenizer) = tokenizer(args, ids, model)? else {
        return Ok(ids.iter().map(|id| format!("{id} ")).collect());
    };
    let of_sequence = |ids: &[u32]| {
        let mut stream = TextStream::new(Arc::clone(&tokenizer), &[]);
        let mut texts: Vec<String> = ids.iter().map(|id| stream.push(*id)).collect();
        // A character that was begun and not completed.
        if let Some(last) = texts.last_mut() {
            last.push_str(&stream.finish());
        }
        texts
    };
    Ok(sequences.ids().flat_map(of_sequence).collect())
}

/// That which is named, or of the model that is; where none is, tokens below 256 are bytes.
fn tokenizer(
    args: &ShowArgs,
    ids: &[u32],
    model: Option<&SpecModel>,
) -> Result<Option<Arc<dyn Tokenizer>>, Error> {
    let n_used = ids.iter().max().map_or(0, |id| id + 1);
    let bytes: Option<Arc<dyn Tokenizer>> = (n_used <= Bytes.vocab_size()).then(|| Arc::new(Bytes) as _);
    let tokenizer = match (&args.tokenizer, &args.model) {
        (Some(path), _) => Some(path.clone()),
        // The model's own files lie in it if it is a directory, and are in it if it is an artefact.
        (None, Some(path)) if path.is_dir() => Some(path.clone()),
        (None, Some(path)) if is_artifact(path)? => None,
        (None, _) => return Ok(bytes),
    };
    let path = args.model.clone().unwrap_or_default();
    let files = LanguageFiles { model: path, tokenizer: tokenizer.clone(), chat_template: None };
    let vocab_size = model.and_then(|model| u32::try_from(model.stream.vocab_size).ok()).unwrap_or(u32::MAX);
    match files.tokenizer(vocab_size) {
        Ok(found) if found.vocab_size() < n_used => {
            let message = format!("a token is {}, and the tokenizer has {}", n_used - 1, found.vocab_size());
            let help = "give the tokenizer of the model that the trace is of";
            Err(Diagnostic::new("trace::tokenizer", message).help(help).into())
        }
        Ok(found) => Ok(Some(found)),
        // A model without one.
        Err(skipc_runtime::Error::PromptVocabulary { .. }) if tokenizer.is_none() => Ok(bytes),
        Err(error) => Err(error.into()),
    }
}

/// A model, which has to be that of the trace.
fn model(path: &Path, trace: &Trace) -> Result<SpecModel, Error> {
    let model = match is_artifact(path)? {
        true => model_of(&open_index(path)?, path)?,
        false => Source::open(path, None)?.model,
    };
    if ContentHash::of(model.to_string().as_bytes()) != trace.provenance.spec_hash {
        let message =
            format!("{}: the trace is of another model, `{}`", path.display(), trace.provenance.model);
        return Err(Diagnostic::new("trace::model", message).help("give the spec of the trace").into());
    }
    Ok(model)
}

/// Writes the trace, and shows it.
fn write(trace: &Trace, path: &Path, json: bool) -> Result<String, Error> {
    trace.write(path)?;
    Shown::of(trace).print(json)
}

fn record(args: &RecordArgs) -> Result<Trace, Error> {
    let run = RunArgs {
        tokens: args.tokens.clone(),
        rows: args.rows.clone(),
        lengths: args.lengths.clone(),
        device: args.device,
        threads: args.threads,
        trust: args.trust.trust.clone(),
        ..RunArgs::scoring(args.artifact.clone())
    };
    command::record(&run).map_err(Error::from)
}

/// What decisions are generated for.
struct Subject {
    name: String,
    spec_hash: ContentHash,
    deciders: Vec<Decider>,
    max_positions: u32,
    /// What a run is of, if that is known yet.
    function: Option<Function>,
}

fn generate(args: &GenerateArgs) -> Result<Trace, Error> {
    let subject = if is_artifact(&args.model)? { of_artifact(&args.model)? } else { of_spec(&args.model)? };
    let lengths = lengths(args, &subject)?;
    let deciding = subject.deciders.iter().filter(|decider| !matches!(decider, Decider::Constant(_))).count();
    let densities = match args.density {
        Some(density) => vec![density; deciding],
        None => args.per_layer.clone(),
    };
    let recipe = Recipe { densities, skew: args.skew, seed: args.seed };
    Trace::generated((&subject.name, subject.spec_hash), &subject.deciders, lengths, recipe)
        .map_err(Error::from)
}

/// Whether a file is an artefact, by how it begins.
pub(super) fn is_artifact(path: &Path) -> Result<bool, Error> {
    use std::io::Read as _;
    if path.is_dir() {
        return Ok(false);
    }
    let mut begin = Vec::new();
    let (file, _) = regular::open(path).map_err(|error| Error::io(path, &error))?;
    file.take(14).read_to_end(&mut begin).map_err(|error| Error::io(path, &error))?;
    Ok(begin == b"skipc-artefact")
}

fn of_artifact(path: &Path) -> Result<Subject, Error> {
    let artifact = open_index(path)?;
    let target = bundle::targets(&artifact).into_iter().next();
    let target = target.ok_or_else(|| {
        let message = format!("{}: the artefact has no program", path.display());
        Error::new(ErrorKind::Input, Diagnostic::new("trace::empty", message))
    })?;
    let mut program =
        bundle::read_program(&artifact, &target).map_err(|error| Error::in_artifact(path, &error))?;
    let function = program.functions.remove(SCORE).ok_or_else(|| {
        Diagnostic::new(
            "trace::empty",
            format!("{}: the artefact has no function that scores", path.display()),
        )
    })?;
    let manifest = &artifact.header().manifest;
    Ok(Subject {
        name: manifest.model.clone(),
        spec_hash: manifest.spec_hash,
        deciders: trace::deciders(&function.interface.routers()),
        max_positions: function.max_positions,
        function: Some(function),
    })
}

fn of_spec(path: &Path) -> Result<Subject, Error> {
    let model = Source::open(path, None)?.model;
    let graph = pipeline::optimised(&model, &Request::host())?;
    Ok(Subject {
        spec_hash: ContentHash::of(model.to_string().as_bytes()),
        deciders: deciders(&graph),
        max_positions: u32::try_from(model.stream.max_positions).unwrap_or(u32::MAX),
        function: None,
        name: model.name,
    })
}

/// What decides in a graph after the passes, which let equal routers share one set.
fn deciders(graph: &Graph) -> Vec<Decider> {
    let sets: Vec<Option<Value>> =
        graph.decisions().map(|(_, gate)| graph.operands(gate).first().copied()).collect();
    graph
        .decisions()
        .enumerate()
        .map(|(router, (_, gate))| {
            if let Op::FillMask { value } = graph.op(gate) {
                return Decider::Constant(*value);
            }
            match sets.iter().position(|set| sets.get(router) == Some(set)) {
                Some(first) if first < router => Decider::SameAs(first),
                _ => Decider::Free,
            }
        })
        .collect()
}

fn lengths(args: &GenerateArgs, subject: &Subject) -> Result<Vec<u32>, Error> {
    let lengths = match args.tokens_per_row {
        Some(length) => vec![length; args.rows as usize],
        None => args.lengths.clone(),
    };
    if let Some((sequence, &length)) =
        lengths.iter().enumerate().find(|(_, length)| **length > subject.max_positions)
    {
        let (found, limit) = (u64::from(length), subject.max_positions);
        return Err(skipc_runtime::Error::SequenceTooLong { sequence, found, limit }.into());
    }
    if let Some(function) = &subject.function {
        Batch { lengths: lengths.clone(), ..Batch::default() }.check_sizes(function)?;
    }
    Ok(lengths)
}

/// A trace as it is printed.
#[derive(Serialize)]
struct Shown<'a> {
    provenance: &'a Provenance,
    sequences: usize,
    tokens: u64,
    routers: Vec<Router>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    experts: Vec<Layer>,
}

/// The choices of one layer of experts.
#[derive(Serialize)]
struct Layer {
    /// How many tokens took each.
    loads: Vec<u64>,
    /// How many times the mean the highest of them is; none where nobody chose.
    highest_over_mean: Option<f64>,
}

/// One router's decisions.
#[derive(Serialize)]
struct Router {
    executed: u64,
    /// Share of all tokens.
    density: f64,
    /// How many of them the router before executes, too; none for the first.
    also_before: Option<u64>,
}

impl Shown<'_> {
    fn of(trace: &Trace) -> Shown<'_> {
        let tokens = trace.n_tokens();
        let count = |gate: &mut dyn Iterator<Item = bool>| gate.filter(|executes| *executes).count() as u64;
        let router = |(router, gate): (usize, &Vec<u8>)| {
            let before = router.checked_sub(1).and_then(|before| trace.gates.get(before));
            let executed = count(&mut gate.iter().map(|row| *row == 1));
            Router {
                executed,
                density: executed as f64 / tokens.max(1) as f64,
                also_before: before.map(|before| {
                    count(&mut gate.iter().zip(before).map(|(here, before)| here & before == 1))
                }),
            }
        };
        let routers = trace.gates.iter().enumerate().map(router).collect();
        let layer = |choices: &Choices| {
            let loads = choices.loads();
            Layer { highest_over_mean: choices::highest_over_mean(&loads), loads }
        };
        let experts = trace.choices.iter().map(layer).collect();
        Shown { provenance: &trace.provenance, sequences: trace.lengths.len(), tokens, routers, experts }
    }

    fn print(&self, json: bool) -> Result<String, Error> {
        if json {
            return to_json(self);
        }
        const BAR: usize = 40;
        let Provenance { model, spec_hash, skipc, source, .. } = self.provenance;
        let mut out = String::new();
        let _ = writeln!(out, "{model} (spec {:.12}…), {}", spec_hash.to_string(), in_words(source));
        let (tokens, sequences) = (counted(self.tokens, "token"), counted(self.sequences as u64, "sequence"));
        let _ = writeln!(out, "{tokens} in {sequences}; written by skipc {skipc}\n");
        let mut density_before = 0.0;
        for (idx, router) in self.routers.iter().enumerate() {
            let Router { executed, density, also_before } = router;
            let filled = ((density * BAR as f64).round() as usize).min(BAR);
            let bar = format!("{}{}", "█".repeat(filled), "·".repeat(BAR - filled));
            let _ = write!(
                out,
                "{:9} {:5.1} %  {bar}  {executed} of {tokens}",
                format!("gate.{idx}"),
                density * 100.0
            );
            if let Some(shared) = also_before.filter(|_| *executed > 0) {
                let share = 100.0 * shared as f64 / *executed as f64;
                let _ = write!(
                    out,
                    ", {share:.1} % of them also in gate.{} ({:.1} % by chance)",
                    idx - 1,
                    density_before * 100.0
                );
            }
            out.push('\n');
            density_before = *density;
        }
        for (layer, Layer { loads, .. }) in self.experts.iter().enumerate() {
            let _ = writeln!(out, "{:9}  {}", format!("choices.{layer}"), choices::balance(loads));
        }
        Ok(out)
    }
}

fn in_words(source: &DecisionSource) -> String {
    match source {
        DecisionSource::Recorded(run) => {
            let replays = run.replayed.is_some() || run.replayed_experts.is_some();
            let how = if replays { "replayed" } else { "recorded" };
            format!(
                "{how} on {} in {}, weights {:.12}…, tokens {:.12}…",
                run.target,
                run.dtype,
                run.weights_hash.to_string(),
                run.tokens_hash.to_string()
            )
        }
        DecisionSource::Generated(Recipe { densities, skew, seed }) => {
            let wanted = match densities.split_first() {
                Some((first, rest)) if rest.iter().all(|density| density == first) => first.to_string(),
                _ => densities.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
            };
            format!("generated with density {wanted}, skew {skew}, seed {seed}")
        }
    }
}

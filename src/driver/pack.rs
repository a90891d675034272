//! A compiled model as the bytes of an artefact.
//!
//! Besides the sections of each target ([`skipc_artifact::bundle`]) an artefact has `spec.toml` (the resolved model),
//! for each function `ir/FUNCTION/lowered.sir` and `ir/FUNCTION/legal.sir` (the graph before and after the passes) and
//! `known-answer/FUNCTION/TYPE.safetensors`, and for each kind of target and precision `plan/KIND-TYPE.json`, the plans of
//! all functions put together. `rewrites.json` has what rules rewrote in each function. `language/FILE` are the files of a
//! tokenizer, if the model came with one.

use std::path::Path;
use std::sync::Arc;

use skipc_artifact::bundle;
use skipc_artifact::manifest::{Manifest, Promises};
use skipc_artifact::section::{ContentHash, LANGUAGE, SectionKind};
use skipc_artifact::target::{DType, Target};
use skipc_artifact::writer::{Content, Writer};
use skipc_runtime::known_answer;
use skipc_runtime::words::counted;

use crate::diagnostic::Diagnostic;
use crate::driver::backends;
use crate::driver::backends::{CpuBackend, CpuLevels};
use crate::driver::constants;
use crate::driver::pipeline::{Compiled, LinkedOf, Phase, PlanOf, Request, SkipRuns, find_linked};
use crate::driver::rewrites::{self, OfFunction};
use crate::driver::trace::{self, Progress, Trace};
use crate::error::{Error, ErrorKind};
use crate::frontend::lower::Function;
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;
use crate::verify::{self, LadderError, graph_section, plan_section};

/// What holds for every program of a compile.
pub fn promises(model: &Model, compiled: &Compiled) -> Promises {
    let mut plans = compiled.phases.iter().flat_map(|phase| &phase.plans);
    let device_resident = plans.all(|of| of.plan.host_waits().is_empty());
    Promises { device_resident, causal: model.is_causal() }
}

/// Writes the artefact: what it is made from, every form of the model, and code for each target. Constants are made while
/// they are written; they go to the second file `external` if there is one. Returns the length of the artefact, and that
/// of the second file.
///
/// # Errors
/// Weights that cannot be read or overflow, what the file system says, or a fault of the compiler: parts that do not fit
/// each other.
pub fn write(
    (path, external): (&Path, Option<&Path>),
    (model, weights): (&Model, &Weights),
    (request, compiled): (&Request, Compiled),
    trace: &mut Trace,
) -> Result<[u64; 2], Error> {
    trace.begin("known answers");
    let writer = writer((model, weights), request, compiled, &trace.progress())?;
    trace.begin("constants");
    let written = match external {
        Some(external) => writer.write_with_external(path, external),
        None => writer.write(path).map(|length| [length, 0]),
    };
    trace.end();
    written.map_err(|error| Error::of_writer(path, error))
}

/// The bytes of an artefact, in memory.
///
/// # Errors
/// As [`write()`].
pub fn to_bytes(
    (model, weights): (&Model, &Weights),
    request: &Request,
    compiled: Compiled,
) -> Result<Vec<u8>, Error> {
    let writer = writer((model, weights), request, compiled, &trace::unheard())?;
    writer.to_bytes().map_err(|error| Error::of_writer("the artefact".as_ref(), error))
}

/// All sections; the constants are not made yet.
fn writer<'w>(
    (model, weights): (&Model, &'w Weights),
    request: &Request,
    compiled: Compiled,
    progress: &Progress,
) -> Result<Writer<'w>, Error> {
    let mut writer = Writer::new(manifest((model, weights), request, &compiled));
    let failed = |error: skipc_artifact::Error| broken(&error);
    for (name, kind, text) in texts(model, &compiled)? {
        writer.section(name, kind, text.into_bytes()).map_err(failed)?;
    }
    for (section, bytes) in known_answers(&compiled, weights, progress)? {
        writer.section(section, SectionKind::KnownAnswer, bytes).map_err(failed)?;
    }
    // Targets of one kind share their constants, which are made once.
    let mut made: Vec<(&'static str, DType, String)> = Vec::new();
    let Compiled { linked, bundles, language, .. } = compiled;
    for (name, bytes) in language {
        writer.section(format!("{LANGUAGE}{name}"), SectionKind::Language, bytes).map_err(failed)?;
    }
    for bundle in bundles {
        let (target, dtype) = (bundle.program.target.clone(), bundle.program.dtype);
        let shared = made.iter().find(|(kind, of, _)| (*kind, *of) == (target.kind(), dtype));
        let constants = match shared {
            Some((_, _, section)) => Content::Same { section: section.clone() },
            None => {
                let linked = find_linked(&linked, &target, dtype);
                let linked = linked.ok_or_else(|| broken(&format!("no plan for {target} in {dtype}")))?;
                made.push((target.kind(), dtype, bundle::constants_section(&target)));
                constants::content(linked.constants.clone(), weights, Arc::clone(progress))
            }
        };
        bundle.write(&mut writer, constants).map_err(failed)?;
    }
    Ok(writer)
}

pub(super) fn broken(error: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::Internal, Diagnostic::new("artifact::pack", error.to_string()))
}

/// The option that names measured times.
pub const TUNING_FLAG: &str = "--tuning ";

/// As the manifest has it: times by their content.
pub fn tuning_flag(hash: ContentHash) -> String {
    format!("{TUNING_FLAG}{hash}")
}

/// The options of a compile that decide its result, in a fixed order.
pub(crate) fn flags(request: &Request) -> Vec<String> {
    let mut flags: Vec<String> =
        request.targets.iter().map(|(target, dtype)| format!("--target {target} --dtype {dtype}")).collect();
    let has_cpu = request.targets.iter().any(|(target, _)| *target == Target::Cpu);
    flags.extend(has_cpu.then(|| format!("--cpu-backend {}", request.cpu_backend.name())));
    let levels = request.cpu_levels;
    flags.extend((has_cpu && levels != CpuLevels::All).then(|| format!("--cpu-levels {}", levels.name())));
    flags.extend((has_cpu && request.in_8_bits).then(|| "--dtype cpu=q8".to_owned()));
    flags.extend((!request.steps).then(|| "--no-steps".to_owned()));
    flags.extend(request.key_values.map(|when| format!("--kv {}", when.name())));
    let is_own = request.skip_runs != SkipRuns::default();
    flags.extend(is_own.then(|| format!("--skip-runs {}", request.skip_runs.name())));
    flags.extend(request.max_tokens.map(|n| format!("--max-tokens {n}")));
    flags.extend(request.passes.as_ref().map(|passes| format!("--passes {}", passes.join(","))));
    flags.extend(request.fuel.map(|fuel| format!("--fuel {fuel}")));
    flags.extend(request.tuning.map(tuning_flag));
    flags
}

fn manifest((model, weights): (&Model, &Weights), request: &Request, compiled: &Compiled) -> Manifest {
    let has_cpu = request.targets.iter().any(|(target, _)| *target == Target::Cpu);
    let has_cuda = request.targets.iter().any(|(target, _)| *target != Target::Cpu);
    Manifest {
        model: model.name.clone(),
        compiler: env!("CARGO_PKG_VERSION").to_owned(),
        llvm: backends::llvm_version()
            .filter(|_| has_cuda || (has_cpu && request.cpu_backend == CpuBackend::Llvm)),
        ptxas: backends::ptxas_version().filter(|_| has_cuda),
        flags: flags(request),
        spec_hash: ContentHash::of(model.to_string().as_bytes()),
        weights_hash: weights.content_hash(),
        targets: request.targets.iter().map(|(target, _)| target.to_string()).collect(),
        promises: promises(model, compiled),
    }
}

/// The sections that are text: name, kind, content.
fn texts(model: &Model, compiled: &Compiled) -> Result<Vec<(String, SectionKind, String)>, Error> {
    let mut sections = vec![("spec.toml".to_owned(), SectionKind::Spec, model.to_string())];
    for Phase { function, lowered, legal, .. } in &compiled.phases {
        sections.push((graph_section(*function, "lowered"), SectionKind::Ir, lowered.to_string()));
        sections.push((graph_section(*function, "legal"), SectionKind::Ir, legal.graph().to_string()));
    }
    for LinkedOf { kind, dtype, linked } in &compiled.linked {
        let json = serde_json::to_string_pretty(linked).map_err(|error| broken(&error))?;
        sections.push((plan_section(kind, *dtype), SectionKind::Plan, json));
    }
    sections.push((rewrites::SECTION.to_owned(), SectionKind::Rewrites, rewrites_json(compiled)?));
    Ok(sections)
}

/// What rules rewrote in each function.
fn rewrites_json(compiled: &Compiled) -> Result<String, Error> {
    let of = |phase: &Phase| OfFunction {
        function: phase.function.name().to_owned(),
        regions: rewrites::regions(&phase.report.rewrites),
    };
    let all: Vec<OfFunction> = compiled.phases.iter().map(of).collect();
    serde_json::to_string_pretty(&all).map_err(|error| broken(&error))
}

/// The known answers for each precision and function, with the names of their sections. What has to come out does not
/// depend on the precision, so it is computed once for each function.
fn known_answers(
    compiled: &Compiled,
    weights: &Weights,
    progress: &Progress,
) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut dtypes: Vec<DType> = compiled.linked.iter().map(|of| of.dtype).collect();
    dtypes.sort_unstable_by_key(|dtype| dtype.name());
    dtypes.dedup();
    let mut sections = Vec::new();
    // What goes on with sequences has the answers of what runs them whole.
    let phases = compiled.phases.iter().filter(|phase| phase.function != Function::Step);
    for Phase { function, lowered, plans, .. } in phases {
        let Some(PlanOf { plan, .. }) = plans.first() else { continue };
        let name = function.name();
        let tick = |read: usize| {
            progress(Some(&format!("known answers of {name}: {} read", counted(read as u64, "tensor"))));
        };
        let answers = verify::known_answers(lowered, &plan.function, weights, &tick);
        let answers = answers.map_err(|error| match error {
            LadderError::NotFinite { .. } => error.into(),
            _ => broken(&error),
        })?;
        for dtype in &dtypes {
            let mut answers = answers.clone();
            // In bf16 rounding decides too often.
            answers.cases.retain(|case| case.name != known_answer::FREE || *dtype == DType::F32);
            let bytes = answers.encode().map_err(|error| broken(&error))?;
            sections.push((known_answer::section_name(name, *dtype), bytes));
        }
    }
    Ok(sections)
}

//! A compiled model as the bytes of an artefact.
//!
//! Besides the sections of each target ([`skipc_artifact::bundle`]) an artefact has `spec.toml` (the resolved model),
//! for each function `ir/FUNCTION/lowered.sir` and `ir/FUNCTION/legal.sir` (the graph before and after the passes) and
//! `known-answer/FUNCTION/TYPE.safetensors`, and for each kind of target and precision `plan/KIND-TYPE.json`, the plans of
//! all functions put together. `rewrites.json` has what rules rewrote in each function.

use skipc_artifact::bundle::Bundle;
use skipc_artifact::manifest::{Manifest, Promises};
use skipc_artifact::section::{ContentHash, SectionKind};
use skipc_artifact::target::Target;
use skipc_artifact::writer::Writer;
use skipc_runtime::known_answer;

use crate::diagnostic::Diagnostic;
use crate::driver::backends;
use crate::driver::backends::CpuBackend;
use crate::driver::pipeline::{Compiled, LinkedOf, Phase, Request};
use crate::driver::rewrites::{self, OfFunction};
use crate::error::{Error, ErrorKind};
use crate::frontend::lower::Function;
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;
use crate::verify::reference::Constants;
use crate::verify::{self, LadderError, graph_section, plan_section};

/// What holds for every program of a compile.
pub fn promises(model: &Model, compiled: &Compiled) -> Promises {
    let mut plans = compiled.phases.iter().flat_map(|phase| &phase.plans);
    let device_resident = plans.all(|of| of.plan.host_waits().is_empty());
    Promises { device_resident, causal: model.is_causal() }
}

/// The artefact, ready to be written: what it is made from, every form of the model, and code for each target.
///
/// # Errors
/// A fault of the compiler: parts that do not fit each other.
pub fn pack(
    model: &Model,
    weights: &Weights,
    request: &Request,
    compiled: Compiled,
) -> Result<Writer<'static>, Error> {
    let spec = model.to_string();
    let mut flags: Vec<String> =
        request.targets.iter().map(|(target, dtype)| format!("--target {target} --dtype {dtype}")).collect();
    let has_cpu = request.targets.iter().any(|(target, _)| *target == Target::Cpu);
    flags.extend(has_cpu.then(|| format!("--cpu-backend {}", request.cpu_backend.name())));
    flags.extend(request.max_tokens.map(|n| format!("--max-tokens {n}")));
    flags.extend(request.passes.as_ref().map(|passes| format!("--passes {}", passes.join(","))));
    flags.extend(request.fuel.map(|fuel| format!("--fuel {fuel}")));
    flags.extend(request.tuning.map(|hash| format!("--tuning {hash}")));
    let has_cuda = request.targets.iter().any(|(target, _)| *target != Target::Cpu);
    let mut writer = Writer::new(Manifest {
        model: model.name.clone(),
        compiler: env!("CARGO_PKG_VERSION").to_owned(),
        llvm: backends::llvm_version()
            .filter(|_| has_cuda || (has_cpu && request.cpu_backend == CpuBackend::Llvm)),
        ptxas: backends::ptxas_version().filter(|_| has_cuda),
        flags,
        spec_hash: ContentHash::of(spec.as_bytes()),
        weights_hash: weights.content_hash(),
        targets: request.targets.iter().map(|(target, _)| target.to_string()).collect(),
        promises: promises(model, &compiled),
    });
    let mut sections = vec![("spec.toml".to_owned(), SectionKind::Spec, spec)];
    for Phase { function, lowered, legal, .. } in &compiled.phases {
        sections.push((graph_section(*function, "lowered"), SectionKind::Ir, lowered.to_string()));
        sections.push((graph_section(*function, "legal"), SectionKind::Ir, legal.graph().to_string()));
    }
    for LinkedOf { kind, dtype, linked } in &compiled.linked {
        let json = serde_json::to_string_pretty(linked).map_err(|error| {
            Error::new(ErrorKind::Internal, Diagnostic::new("artifact::pack", error.to_string()))
        })?;
        sections.push((plan_section(kind, *dtype), SectionKind::Plan, json));
    }
    sections.push((rewrites::SECTION.to_owned(), SectionKind::Rewrites, rewrites_json(&compiled)?));
    for (name, kind, text) in sections {
        writer.section(name, kind, text.into_bytes()).map_err(|error| failed(&error))?;
    }
    for (section, bytes) in known_answers(&compiled)? {
        writer.section(section, SectionKind::KnownAnswer, bytes).map_err(|error| failed(&error))?;
    }
    for bundle in compiled.bundles {
        bundle.write(&mut writer).map_err(|error| failed(&error))?;
    }
    Ok(writer)
}

/// The bytes of an artefact, in memory.
///
/// # Errors
/// As [`pack`].
pub fn to_bytes(
    model: &Model,
    weights: &Weights,
    request: &Request,
    compiled: Compiled,
) -> Result<Vec<u8>, Error> {
    pack(model, weights, request, compiled)?.to_bytes().map_err(|error| failed(&error))
}

fn failed(error: &skipc_artifact::Error) -> Error {
    Error::new(ErrorKind::Internal, Diagnostic::new("artifact::pack", error.to_string()))
}

/// What rules rewrote in each function.
fn rewrites_json(compiled: &Compiled) -> Result<String, Error> {
    let of = |phase: &Phase| OfFunction {
        function: phase.function.name().to_owned(),
        regions: rewrites::regions(&phase.report.rewrites),
    };
    let all: Vec<OfFunction> = compiled.phases.iter().map(of).collect();
    serde_json::to_string_pretty(&all).map_err(|error| {
        Error::new(ErrorKind::Internal, Diagnostic::new("artifact::pack", error.to_string()))
    })
}

/// The known answers for each precision and function, with the names of their sections.
fn known_answers(compiled: &Compiled) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let broken = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Internal, Diagnostic::new("artifact::pack", error.to_string()))
    };
    let mut sections: Vec<(String, Vec<u8>)> = Vec::new();
    for Bundle { program, constants, .. } in &compiled.bundles {
        let linked = compiled.linked(&program.target, program.dtype);
        let linked = linked.ok_or_else(|| broken(&format!("no plan in {}", program.dtype)))?;
        // What goes on with sequences has the answers of what runs them whole.
        for phase in compiled.phases.iter().filter(|phase| phase.function != Function::Step) {
            let function = phase.function.name();
            let name = known_answer::section_name(function, program.dtype);
            if sections.iter().any(|(known, _)| *known == name) {
                continue;
            }
            let constants = Constants { program, sources: &linked.constants, bytes: constants };
            let answers = verify::known_answers(&phase.lowered, function, &constants);
            let answers = answers.map_err(|error| match error {
                LadderError::NotFinite { .. } => error.into(),
                _ => broken(&error),
            })?;
            sections.push((name, answers.encode().map_err(|error| broken(&error))?));
        }
    }
    Ok(sections)
}

//! What is looked at: an artefact, a spec that is compiled for it, or a graph in its text form.

use std::path::Path;
use std::sync::Arc;

use skipc_artifact::bundle::BundleCode;
use skipc_artifact::manifest::Manifest;
use skipc_artifact::program::Program;
use skipc_artifact::reader::Sections;
use skipc_artifact::section::{SectionEntry, SectionKind};
use skipc_artifact::target::DType;
use skipc_ir::Graph;
use skipc_ir::text::parse;
use skipc_plan::Linked;

use super::phases::{self, Phase};
use crate::cost::bucketing::tuned;
use crate::cost::bucketing::tuning::Tuning;
use crate::diagnostic::Diagnostic;
use crate::driver::backends::CpuBackend;
use crate::driver::contents::Contents;
use crate::driver::original::model_of;
use crate::driver::pack::{TUNING_FLAG, tuning_flag};
use crate::driver::pipeline::{self, Compiled, Request, SkipRuns};
use crate::driver::rewrites::{self, OfFunction};
use crate::driver::trace::Trace;
use crate::error::Error;
use crate::frontend::language::ast::Ast;
use crate::frontend::lower;
use crate::frontend::source::Source;
use crate::frontend::spec::model::Model;

/// A model in all its forms, as far as there are any.
pub struct Subject {
    /// What users call it: the path that they gave.
    pub name: String,
    /// The resolved model; a graph has none.
    pub model: Option<Model>,
    /// The spec as it was written, if it is at hand: an artefact keeps the resolved one alone.
    pub written: Option<Ast>,
    /// What decides the code of kernels. Measured times are not in an artefact, see [`Subject::with_tuning`].
    pub request: Request,
    /// Where it comes from, if it is an artefact.
    pub manifest: Option<Manifest>,
    /// The options that decided the compile.
    pub options: Vec<String>,
    /// The graphs of each function, that which scores first.
    pub functions: Vec<Function>,
    /// The plans of each kind of target and precision.
    pub plans: Vec<PlansOf>,
    /// The programs, one for each target.
    pub programs: Vec<Program>,
    /// What rules rewrote in each function.
    pub rewrites: Vec<OfFunction>,
    /// The code of all targets.
    pub code: Vec<CodePiece>,
    /// What `inspect --json` says of an artefact.
    pub inspect: Option<serde_json::Value>,
}

/// A function in all its graphs.
pub struct Function {
    /// Its name, such as `score`.
    pub name: String,
    /// The graph after each phase, in order.
    pub phases: Vec<Phase>,
}

/// Plans and what they are for.
pub struct PlansOf {
    /// The kind of target.
    pub kind: String,
    /// Precision of the layers.
    pub dtype: DType,
    /// Those of all functions, put together.
    pub linked: Linked,
}

/// A piece of machine code or PTX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodePiece {
    /// Such as `cpu/avx2.code`, as the section of an artefact is called.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// PTX, and what can be disassembled; empty for code of the host.
    pub content: Vec<u8>,
}

impl PlansOf {
    /// Such as `cpu-f32`.
    pub fn name(&self) -> String {
        format!("{}-{}", self.kind, self.dtype)
    }
}

impl Subject {
    /// Everything in an artefact but its constants. The passes run again over the graph that it was lowered to, for the
    /// phases between; if they end elsewhere, because another version of skipc wrote it, these are left out.
    ///
    /// # Errors
    /// A section that cannot be read, or that another version of skipc wrote.
    pub fn of_artifact(artifact: &impl Sections, path: &Path) -> Result<Subject, Error> {
        let failed = |error: skipc_artifact::Error| Error::in_artifact(path, &error);
        let model = model_of(artifact, path)?;
        let manifest = artifact.header().manifest.clone();
        let request = request_of(&manifest.flags);
        let contents = Contents::of(artifact).map_err(failed)?;
        let text = |entry: &SectionEntry| -> Result<String, Error> {
            let bytes = artifact.bytes(entry).map_err(failed)?;
            String::from_utf8(bytes.into_owned()).map_err(|error| unreadable(path, &entry.name, &error))
        };
        let (mut functions, mut plans, mut code) = (Vec::new(), Vec::new(), Vec::new());
        let mut rewritten = Vec::new();
        for entry in &artifact.header().sections {
            let names: Vec<&str> = entry.name.split(['/', '.']).collect();
            match (entry.kind, names.as_slice()) {
                (SectionKind::Ir, ["ir", function, "lowered", _]) => {
                    let lowered = graph(path, &entry.name, &text(entry)?)?;
                    let legal = format!("ir/{function}/legal.sir");
                    let section = artifact.entry(&legal, SectionKind::Ir).map_err(failed)?;
                    let legal = graph(path, &legal, &text(section)?)?;
                    let of = lower::Function::named(function).unwrap_or(lower::Function::Score);
                    let phases = phases::between(lowered, legal, (&model, of), &request)?;
                    functions.push(Function { name: (*function).to_owned(), phases });
                }
                (SectionKind::Plan, ["plan", name, _]) => {
                    let linked: Linked = serde_json::from_str(&text(entry)?)
                        .map_err(|error| unreadable(path, &entry.name, &error))?;
                    let (kind, _) = name.split_once('-').unwrap_or((*name, ""));
                    plans.push(PlansOf { kind: kind.to_owned(), dtype: linked.dtype, linked });
                }
                (SectionKind::Rewrites, _) => {
                    rewritten = serde_json::from_str(&text(entry)?)
                        .map_err(|error| unreadable(path, &entry.name, &error))?;
                }
                (SectionKind::HostCode, _) => {
                    code.push(CodePiece {
                        name: entry.name.clone(),
                        bytes: entry.length,
                        content: Vec::new(),
                    });
                }
                (SectionKind::Ptx | SectionKind::Cubin, _) => {
                    let content = artifact.bytes(entry).map_err(failed)?.into_owned();
                    code.push(CodePiece { name: entry.name.clone(), bytes: entry.length, content });
                }
                _ => {}
            }
        }
        Ok(Subject {
            name: path.display().to_string(),
            model: Some(model),
            written: None,
            request,
            options: manifest.flags.clone(),
            manifest: Some(manifest),
            functions,
            plans,
            inspect: Some(contents.json(artifact.header())),
            programs: contents.programs,
            rewrites: rewritten,
            code,
        })
    }

    /// A model that is compiled now, with random tensors or none: nothing of a subject depends on them.
    ///
    /// # Errors
    /// As [`pipeline::compile`].
    pub fn of_source(source: Source, path: &Path, request: Request) -> Result<Subject, Error> {
        let written = source.written();
        let model = source.model;
        let compiled = pipeline::compile(&model, &request, &mut Trace::silent())?;
        let mut functions = Vec::new();
        for phase in &compiled.phases {
            let legal = phase.legal.graph().clone();
            let phases = phases::between(phase.lowered.clone(), legal, (&model, phase.function), &request)?;
            functions.push(Function { name: phase.function.name().to_owned(), phases });
        }
        let rewrites = compiled.phases.iter().map(|phase| OfFunction {
            function: phase.function.name().to_owned(),
            regions: rewrites::regions(&phase.report.rewrites),
        });
        Ok(Subject {
            name: path.display().to_string(),
            options: crate::driver::pack::flags(&request),
            manifest: None,
            functions,
            rewrites: rewrites.collect(),
            code: code_of(&compiled),
            inspect: None,
            programs: compiled.bundles.iter().map(|bundle| bundle.program.clone()).collect(),
            plans: compiled
                .linked
                .into_iter()
                .map(|of| PlansOf { kind: of.kind.to_owned(), dtype: of.dtype, linked: of.linked })
                .collect(),
            model: Some(model),
            written,
            request,
        })
    }

    /// A graph, which has one phase and no more.
    pub fn of_graph(graph: Graph, path: &Path) -> Subject {
        let phases = vec![Phase { name: "graph".to_owned(), graph }];
        Subject {
            name: path.display().to_string(),
            model: None,
            written: None,
            request: Request::host(),
            manifest: None,
            options: Vec::new(),
            functions: vec![Function { name: "graph".to_owned(), phases }],
            plans: Vec::new(),
            programs: Vec::new(),
            rewrites: Vec::new(),
            code: Vec::new(),
            inspect: None,
        }
    }
}

/// The options of a compile that a manifest keeps, as far as graphs and code of kernels depend on them.
fn request_of(flags: &[String]) -> Request {
    let value = |name: &str| flags.iter().find_map(|flag| flag.strip_prefix(name)?.strip_prefix(' '));
    let mut request = Request::host();
    request.skip_runs = match value("--skip-runs") {
        Some("together") => SkipRuns::Together,
        _ => SkipRuns::Apart,
    };
    request.passes = value("--passes").map(|passes| passes.split(',').map(str::to_owned).collect());
    request.fuel = value("--fuel").and_then(|fuel| fuel.parse().ok());
    let named = |backend: &CpuBackend| Some(backend.name()) == value("--cpu-backend");
    if let Some(backend) = CpuBackend::built().into_iter().find(named) {
        request.cpu_backend = backend;
    }
    request
}

fn code_of(compiled: &Compiled) -> Vec<CodePiece> {
    let sizes = compiled.bundles.iter().flat_map(|bundle| {
        let target = bundle.program.target.to_string().replace(':', "/");
        let named = |what: &str, bytes: usize, content: &[u8]| CodePiece {
            name: format!("{target}/{what}"),
            bytes: bytes as u64,
            content: content.to_vec(),
        };
        match &bundle.code {
            BundleCode::Host(images) => images
                .iter()
                .map(|image| {
                    let name = format!("{:?}.code", image.table.level).to_lowercase();
                    named(&name, image.code.len(), &[])
                })
                .collect::<Vec<_>>(),
            BundleCode::Cuda { ptx, cubin } => {
                let cubin = cubin.as_ref().map(|cubin| named("code.cubin", cubin.len(), cubin));
                [named("code.ptx", ptx.len(), ptx.as_bytes())].into_iter().chain(cubin).collect()
            }
        }
    });
    sizes.collect()
}

fn graph(path: &Path, section: &str, text: &str) -> Result<Graph, Error> {
    parse(text).map_err(|errors| {
        let first = errors.first().map(ToString::to_string).unwrap_or_default();
        unreadable(path, section, &first)
    })
}

fn unreadable(path: &Path, section: &str, error: &dyn std::fmt::Display) -> Error {
    let message = format!("{}: `{section}`: {error}", path.display());
    let help = "it was written by another version of skipc: compile the model again";
    Diagnostic::new("report::section", message).help(help).into()
}

impl Subject {
    /// With the measured times that it was compiled with, so that the code of its kernels can be generated again.
    ///
    /// # Errors
    /// `tuning::other` for times that are not those.
    pub fn with_tuning(mut self, path: &Path) -> Result<Subject, Error> {
        let tuning = Tuning::read(path)?;
        let hash = tuning.content_hash();
        if !self.options.contains(&tuning_flag(hash)) {
            let message = format!("{}: {} was not compiled with these times", path.display(), self.name);
            let help = "give the file that stood behind `--tuning` when it was compiled, as it was";
            return Err(Diagnostic::new("tuning::other", message).help(help).into());
        }
        self.request.bucketings = tuned(tuning, &Arc::default());
        self.request.tuning = Some(hash);
        Ok(self)
    }

    /// Whether the code of its kernels is what this request generates: not if measured times decided it that are not at
    /// hand.
    pub fn knows_its_code(&self) -> bool {
        self.request.tuning.is_some() || !self.options.iter().any(|option| option.starts_with(TUNING_FLAG))
    }

    /// The graph of a function after a phase.
    pub fn graph(&self, function: &str, phase: &str) -> Option<&Graph> {
        let function = self.functions.iter().find(|of| of.name == function)?;
        function.phases.iter().find(|of| of.name == phase).map(|of| &of.graph)
    }

    /// The plans that a program was made from.
    pub fn plans_of(&self, program: &Program) -> Option<&PlansOf> {
        self.plans.iter().find(|of| of.kind == program.target.kind() && of.dtype == program.dtype)
    }
}

//! Everything that the pages show but code, as one tree of JSON.
//!
//! Tables stand for lists of values: a node of a graph is `[op, operands, attributes, type, place, identity]`, where the place is
//! an index of `places`, and values of one identity compute the same from the same leaves, in whatever phase.

use std::collections::BTreeMap;

use indexmap::IndexSet;
use serde_json::{Value, json};
use skipc_artifact::manifest::Manifest;
use skipc_artifact::program::{Arg, BOUND_UNIT, Bounds, Buffer, Launch, Program, RowBound, Storage};
use skipc_ir::Graph;
use skipc_ir::ops::{self, Attrs, Trait};
use skipc_ir::text::Numbering;
use skipc_plan::Linked;

use super::lines::Lines;
use crate::error::Error;
use crate::frontend::language::ast;
use crate::frontend::language::words::Word;
use crate::frontend::spec::model::Model;
use crate::frontend::spec::skip_table::Router;
use crate::report::Subject;
use crate::report::cost::{self, STEP_TOKENS};
use crate::report::diff::graph::Signed;
use crate::report::phases::Phase;
use crate::report::subject::PlansOf;

/// Steps of the sliders from density 0 to 1.
const DENSITY_STEPS: u32 = 20;

/// What is numbered while the tree is made.
#[derive(Default)]
struct Names {
    places: IndexSet<String>,
    identities: IndexSet<u64>,
}

/// The tree of a subject.
///
/// # Errors
/// A subject without a model: a fault of the caller.
pub(super) fn of(subject: &Subject) -> Result<Value, Error> {
    let missing = || Error::internal("report::spec", &"a report is of a model");
    let model = subject.model.as_ref().ok_or_else(missing)?;
    let resolved = model.to_string();
    let ast = match &subject.written {
        Some(ast) => ast.clone(),
        None => ast::parse(&model.name, &resolved)?,
    };
    let mut names = Names::default();
    let functions: Vec<Value> = subject
        .functions
        .iter()
        .map(|of| json!({"name": of.name, "phases": phases(&of.phases, &mut names)}))
        .collect();
    let plans: Vec<Value> = subject.plans.iter().map(|of| plan(of, &mut names)).collect();
    let lines = Lines::of(model, &ast);
    let place = |name: &String| json!({"name": name, "line": lines.line(name)});
    Ok(json!({
        "title": model.name,
        "skipc": env!("CARGO_PKG_VERSION"),
        "what": what(subject),
        "spec": ast.source.text(),
        "written": subject.written.as_ref().map(|ast| ast.source.name()),
        "resolved": resolved,
        "code_is_known": subject.knows_its_code(),
        "inspect": subject.inspect,
        "options": subject.options,
        "provenance": provenance(subject),
        "promises": subject.manifest.as_ref().map(promises),
        "blocks": blocks(model),
        "ops": op_table(),
        "functions": functions,
        "plans": plans,
        "places": names.places.iter().map(place).collect::<Vec<_>>(),
        "programs": subject.programs.iter().map(|of| program(subject, of)).collect::<Vec<_>>(),
        "costs": subject.programs.iter().map(|of| costs(model, of)).collect::<Vec<_>>(),
        "rewrites": subject.rewrites,
        "code": subject.code.iter().map(|code| json!({"name": code.name, "bytes": code.bytes})).collect::<Vec<_>>(),
    }))
}

fn what(subject: &Subject) -> String {
    let targets: Vec<String> =
        subject.programs.iter().map(|program| format!("{} in {}", program.target, program.dtype)).collect();
    let kind = if subject.manifest.is_some() { "An artefact" } else { "A spec, compiled for this report" };
    format!("{kind}, for {}.", targets.join(" and "))
}

fn provenance(subject: &Subject) -> Vec<(&'static str, String)> {
    let Some(Manifest { compiler, llvm, ptxas, spec_hash, weights_hash, .. }) = &subject.manifest else {
        return vec![("skipc", env!("CARGO_PKG_VERSION").to_owned())];
    };
    let mut rows = vec![("skipc", compiler.clone())];
    rows.extend(llvm.clone().map(|version| ("LLVM", version)));
    rows.extend(ptxas.clone().map(|version| ("ptxas", version)));
    rows.push(("BLAKE3 of the resolved spec", spec_hash.to_string()));
    rows.push(("BLAKE3 of the weights", weights_hash.to_string()));
    rows
}

fn promises(manifest: &Manifest) -> Vec<(&'static str, bool, &'static str)> {
    let promises = manifest.promises;
    vec![
        ("device_resident", promises.device_resident, "no step waits for a number to travel to the host"),
        ("causal", promises.causal, "no decision or value of a token depends on later tokens"),
    ]
}

fn blocks(model: &Model) -> Vec<Value> {
    let mut router = 0usize..;
    let mut blocks = Vec::new();
    for repetition in model.repetitions() {
        // The decision over a stack's repetition stands at its first block; the others are under it.
        let over =
            repetition.skip.map(|skip| json!({"kind": Router::of(skip).word(), "density": skip.density}));
        let mut of_stack = repetition.skip.map(|skip| (repetition.name(), skip));
        for (place, block) in repetition.blocks {
            let own = block.routes().map(|(unit, skip)| (unit.name(place.run), skip));
            let routers = of_stack.take().into_iter().chain(own).zip(router.by_ref());
            let routers = routers.map(|((name, skip), router)| {
                json!({
                    "name": name,
                    "router": router,
                    "kind": Router::of(skip).word(),
                    "density": skip.density,
                })
            });
            blocks.push(json!({"block": block.name, "routers": routers.collect::<Vec<_>>(), "under": over}));
        }
    }
    blocks
}

/// The rows of the table of ops, by name.
fn op_table() -> BTreeMap<&'static str, Value> {
    let row = |info: &'static ops::OpInfo| {
        let is_constant = info.traits.contains(&Trait::Constant);
        (info.name, json!({"doc": info.doc.trim(), "operands": info.operands, "constant": is_constant}))
    };
    ops::table().into_iter().map(row).collect()
}

/// The phases of a function. One that changed nothing says which it is the same as.
fn phases(phases: &[Phase], names: &mut Names) -> Vec<Value> {
    let texts: Vec<String> = phases.iter().map(|phase| phase.graph.to_string()).collect();
    let of = |(idx, phase): (usize, &Phase)| match texts.iter().position(|text| *text == texts[idx]) {
        Some(same) if same < idx => json!({"name": phase.name, "same": same}),
        _ => graph(&phase.name, &phase.graph, names),
    };
    phases.iter().enumerate().map(of).collect()
}

fn graph(name: &str, graph: &Graph, names: &mut Names) -> Value {
    let numbering = Numbering::new(graph);
    let signed = Signed::of(graph);
    let node = |(idx, value): (usize, &skipc_ir::Value)| {
        let operands: Vec<usize> =
            graph.operands(*value).into_iter().map(|operand| numbering.number(operand)).collect();
        let (op, ty) = (graph.op(*value), graph.ty(*value).to_string());
        let place = names.places.insert_full(graph.origin(*value).to_string()).0;
        let identity = names.identities.insert_full(signed.hashes[idx]).0;
        json!([op.name(), operands, Attrs(op).to_string(), ty, place, identity])
    };
    let nodes: Vec<Value> = numbering.values().iter().enumerate().map(node).collect();
    let result = |(role, value): (&skipc_artifact::interface::Role, skipc_ir::Value)| {
        json!([role.to_string(), numbering.number(value)])
    };
    json!({"name": name, "nodes": nodes, "results": graph.results().map(result).collect::<Vec<_>>()})
}

fn plan(plans: &PlansOf, names: &mut Names) -> Value {
    let Linked { kernels, constants, states, functions, .. } = &plans.linked;
    let kernel = |(symbol, kernel): &(String, skipc_plan::kernel::Kernel)| {
        let content = serde_json::to_value(&kernel.body).unwrap_or_default();
        let kind = content.as_object().and_then(|body| body.keys().next().cloned()).unwrap_or_default();
        let params: Vec<&str> = kernel.params.iter().map(|param| param.name.as_str()).collect();
        json!({
            "symbol": symbol,
            "kind": kind,
            "text": format!("kernel {symbol} {kernel}"),
            "params": params,
            "writes": kernel.writes(),
        })
    };
    let constant = |of: &skipc_plan::PlanConstant| {
        let of = &of.constant;
        json!({"name": of.name, "dtype": of.dtype, "rows": of.rows, "cols": of.cols, "bytes": of.bytes()})
    };
    let state = |of: &skipc_artifact::program::State| json!({"name": of.name, "dtype": of.dtype, "rows": rows(of.rows), "cols": of.cols});
    let functions: Vec<Value> = functions
        .iter()
        .map(|(name, of)| {
            let step = |(step, source): (&skipc_artifact::program::Step, &skipc_plan::StepSource)| {
                let arg = |arg: &Arg| match arg {
                    Arg::Buffer(idx) => json!(["b", idx]),
                    Arg::Constant(idx) => json!(["c", idx]),
                };
                json!({
                    "kernel": step.kernel,
                    "place": names.places.insert_full(step.origin.clone()).0,
                    "args": step.args.iter().map(arg).collect::<Vec<_>>(),
                    "nodes": source.nodes.iter().filter_map(|node| number(node)).collect::<Vec<_>>(),
                })
            };
            let function = &of.function;
            json!({
                "name": name,
                "steps": function.steps.iter().zip(&of.sources).map(step).collect::<Vec<_>>(),
                "buffers": function.buffers.iter().map(buffer).collect::<Vec<_>>(),
                "row_bytes": function.row_bytes,
                "fixed_bytes": function.fixed_bytes,
                "max_tokens": function.max_tokens,
            })
        })
        .collect();
    json!({
        "name": plans.name(),
        "dtype": plans.dtype,
        "kernels": kernels.iter().map(kernel).collect::<Vec<_>>(),
        "constants": constants.iter().map(constant).collect::<Vec<_>>(),
        "states": states.iter().map(state).collect::<Vec<_>>(),
        "functions": functions,
    })
}

/// The number of the value that a printed node defines: 257 of `%257 = attention …`.
fn number(node: &str) -> Option<usize> {
    let digits = node.trim_start().strip_prefix('%')?;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn buffer(buffer: &Buffer) -> Value {
    let bytes = |tokens: u32| buffer.bytes(Bounds { tokens, cached: 0 });
    let (place, state) = match buffer.storage {
        Storage::Step(place) => (Some([place.fixed_offset, place.row_offset]), None),
        Storage::State(state) => (None, Some(state)),
    };
    json!({
        "name": buffer.name,
        "dtype": buffer.dtype,
        "rows": rows(buffer.rows),
        "cols": buffer.cols,
        "row_bytes": (bytes(BOUND_UNIT) - bytes(0)) / u64::from(BOUND_UNIT),
        "fixed_bytes": bytes(0),
        "place": place,
        "state": state,
        "live": buffer.live,
    })
}

fn rows(bound: RowBound) -> String {
    match bound {
        RowBound::Tokens => "tokens".to_owned(),
        RowBound::Fixed(rows) => rows.to_string(),
        RowBound::Cached => "cached".to_owned(),
    }
}

fn program(subject: &Subject, program: &Program) -> Value {
    let plan =
        subject.plans.iter().position(|of| of.kind == program.target.kind() && of.dtype == program.dtype);
    json!({
        "target": program.target,
        "plan": plan,
        "constant_bytes": program.constant_bytes,
        "launches": program.entries.iter().map(|entry| launch(&entry.launch)).collect::<Vec<_>>(),
    })
}

/// How a kernel is started, in words.
fn launch(launch: &Launch) -> String {
    let tiles: Vec<String> = launch
        .tiles()
        .iter()
        .map(|tile| match tile.from {
            0 => format!("{} × {}", tile.rows, tile.across),
            from => format!("{} × {} from {from} rows", tile.rows, tile.across),
        })
        .collect();
    let mut parts = Vec::new();
    if !tiles.is_empty() {
        parts.push(format!("tiles of {}", tiles.join(", ")));
    }
    match launch {
        Launch::Host { tile_rows, few_rows, scratch_bytes, .. } => {
            match tile_rows {
                0 => parts.push("all rows in one call".to_owned()),
                rows => parts.push(format!("{rows} rows a tile")),
            }
            parts.extend(
                few_rows.map(|few| format!("up to {} rows {} tiles side by side", few.at_most, few.tiles)),
            );
            parts.push(format!("{scratch_bytes} B of scratch memory"));
        }
        Launch::Cuda { threads, shared_bytes, registers, static_shared_bytes, persistent, .. } => {
            parts.push(format!("{threads} threads of {registers} registers"));
            parts.push(format!("{} B of shared memory", shared_bytes + static_shared_bytes));
            parts.extend(persistent.then(|| "persistent".to_owned()));
        }
    }
    parts.join(", ")
}

/// What `inspect --cost` says, at every step of the sliders; nothing for a target that this build cannot price.
fn costs(model: &Model, program: &Program) -> Value {
    let densities: Vec<f64> =
        (0..=DENSITY_STEPS).map(|step| f64::from(step) / f64::from(DENSITY_STEPS)).collect();
    let target = (&program.target, program.dtype);
    let Ok(report) = cost::report(model, target, STEP_TOKENS, &densities) else { return Value::Null };
    let note = match program.target.kind() {
        "cpu" => "One thread, by the constants of the cost model.",
        _ => "By published rates of the device, not measured.",
    };
    json!({"target": program.target, "note": note, "cost": report})
}

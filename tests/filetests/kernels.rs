//! The kernels that a model is compiled to.

use std::fmt::Write;
use std::path::Path;

use indexmap::IndexMap;
use skipc::cost::{Even, PlanCost, part};
use skipc::driver::backends::CpuBackend;
use skipc::driver::pipeline::{self, Request, Variant};
use skipc::frontend::spec;
use skipc_artifact::target::{DType, Target};
use skipc_passes::rewrite::cost::CPU;
use skipc_plan::Plan;
use skipc_testkit::file_cases::FileCase;

/// A part of the model in one form: the names of its kernels, and the bytes that they move.
type Parts = IndexMap<String, (Vec<String>, f64)>;

pub(crate) fn kernels_case(case: &FileCase) -> String {
    let get = |key: &str| case.get(key).unwrap_or_else(|| panic!("{}: no `{key}`", case.path.display()));
    let number = |key: &str| get(key).parse::<f64>().unwrap_or_else(|error| panic!("`{key}`: {error}"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(get("model"));
    let model = spec::load(&path).unwrap_or_else(|found| panic!("{}: {found:?}", path.display()));
    let counts = Even { tokens: number("tokens"), density: number("density") };
    let parts = |form| {
        // Whatever this build has: a plan for one of them is pinned.
        let request = Request { variant: form, cpu_backend: CpuBackend::Cranelift, ..Request::host() };
        let plan = pipeline::planned(&model, (&Target::Cpu, DType::F32), &request);
        parts(&plan.unwrap_or_else(|failure| panic!("{}", failure.diagnostics)), &counts)
    };
    let (before, after) = (parts(Variant::Unfused), parts(Variant::Fused));
    let sum = |parts: &Parts| {
        let kernels: usize = parts.values().map(|(kernels, _)| kernels.len()).sum();
        (kernels, parts.values().map(|(_, bytes)| bytes).sum::<f64>() / 1e6)
    };
    let ((n_before, mb_before), (n_after, mb_after)) = (sum(&before), sum(&after));
    let mut out = format!(
        "all: {n_before} kernels without fusion, {n_after} with it; {mb_before:.2} MB moved, {mb_after:.2} MB\n"
    );
    // Blocks that are alike are listed once.
    let mut seen: Vec<(&Vec<String>, Vec<&str>, usize)> = Vec::new();
    for (name, (kernels, _)) in &after {
        let unfused = before.get(name).map_or(0, |(kernels, _)| kernels.len());
        match seen.iter_mut().find(|(known, _, n)| *known == kernels && *n == unfused) {
            Some((_, names, _)) => names.push(name),
            None => seen.push((kernels, vec![name], unfused)),
        }
    }
    for (kernels, names, unfused) in seen {
        let bytes = |parts: &Parts| parts.get(names[0]).map_or(0.0, |(_, bytes)| bytes / 1e6);
        let _ = writeln!(
            out,
            "\n{}: {unfused} kernels without fusion, {} with it; {:.3} MB moved, {:.3} MB",
            names.join(", "),
            kernels.len(),
            bytes(&before),
            bytes(&after)
        );
        kernels.iter().for_each(|kernel| {
            let _ = writeln!(out, "  {kernel}");
        });
    }
    out
}

fn parts(plan: &Plan, counts: &Even) -> Parts {
    let cost = PlanCost::of(plan, &CPU);
    let mut parts = Parts::new();
    for (step, (origin, cost)) in plan.function.steps.iter().zip(&cost.steps) {
        let (kernels, bytes) = parts.entry(part(origin)).or_default();
        kernels.push(plan.kernels[step.kernel as usize].1.describe());
        *bytes += cost.bytes.at(counts);
    }
    parts
}

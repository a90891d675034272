//! Numbers of two models side by side: memory, predicted cost, size of code. Less is better in all of them.

use std::collections::BTreeMap;

use serde::Serialize;
use skipc_artifact::program::{Program, SCORE};
use skipc_ir::SetSym;
use skipc_passes::rewrite::cost::{Counts, Poly};

use crate::cost::bucketing::machine::Machine;
use crate::cost::{Even, PlanCost, StepCost};
use crate::frontend::spec::model::Model;
use crate::report::Subject;
use crate::report::cost::STEP_TOKENS;

/// Densities, of all routers at once, at which the cost is predicted besides those of the spec.
const DENSITIES: [f64; 3] = [0.125, 0.5, 1.0];

/// A number that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// `memory`, `cost` or `code`.
    pub group: &'static str,
    /// Such as `cpu: score: bytes a token`.
    pub what: String,
    /// Such as `bytes` or `µs`.
    pub unit: &'static str,
    /// Before; none if there is no such number.
    pub before: Option<f64>,
    /// After.
    pub after: Option<f64>,
}

impl Figure {
    /// By which share it grew; negative if it shrank, none if only one side has it.
    pub fn growth(&self) -> Option<f64> {
        let (before, after) = (self.before?, self.after?);
        if before == 0.0 {
            return (after > 0.0).then_some(f64::INFINITY);
        }
        Some(after / before - 1.0)
    }
}

/// The figures that differ, in the order of the first subject.
pub(super) fn changes(before: &Subject, after: &Subject) -> Vec<Figure> {
    let mut all: Vec<Figure> = all(before);
    for figure in self::all(after) {
        match all.iter_mut().find(|known| known.what == figure.what && known.group == figure.group) {
            Some(known) => known.after = figure.before,
            None => all.push(Figure { before: None, after: figure.before, ..figure }),
        }
    }
    all.retain(|figure| figure.before != figure.after);
    all
}

/// All figures of a subject, as those before.
pub fn all(subject: &Subject) -> Vec<Figure> {
    let mut found = Vec::new();
    for program in &subject.programs {
        memory(program, &mut found);
    }
    for program in &subject.programs {
        cost(subject, program, &mut found);
    }
    found.extend(
        subject.code.iter().map(|code| figure("code", code.name.clone(), "bytes", code.bytes as f64)),
    );
    found
}

fn figure(group: &'static str, what: String, unit: &'static str, value: f64) -> Figure {
    Figure { group, what, unit, before: Some(value), after: None }
}

fn memory(program: &Program, found: &mut Vec<Figure>) {
    let target = &program.target;
    let mut add = |what: String, unit, value: u64| found.push(figure("memory", what, unit, value as f64));
    add(format!("{target}: constants"), "bytes", program.constant_bytes);
    add(format!("{target}: states"), "bytes", program.state_fixed_bytes);
    add(format!("{target}: caches a token"), "bytes", program.state_row_bytes);
    for (name, function) in &program.functions {
        add(format!("{target}: {name}: activations a token"), "bytes", function.row_bytes);
        add(format!("{target}: {name}: activations"), "bytes", function.fixed_bytes);
        add(format!("{target}: {name}: kernel runs"), "runs", function.steps.len() as u64);
    }
}

fn cost(subject: &Subject, program: &Program, found: &mut Vec<Figure>) {
    let Some((model, cost)) = subject.model.as_ref().zip(cost_of(subject, program)) else { return };
    let tokens = (STEP_TOKENS as usize).min(model.stream.max_positions) as f64;
    let target = &program.target;
    let mut add = |at: &str, counts: &dyn Counts| {
        let sum = |of: fn(&StepCost) -> &Poly| {
            PlanCost::sum(cost.steps.iter().map(|(_, step)| step), of).at(counts)
        };
        let step = format!("{target}: a step of {tokens} tokens at {at}");
        found.push(figure("cost", step.clone(), "µs", round(cost.time(counts) / 1e3)));
        found.push(figure(
            "cost",
            format!("{step}: multiply-adds"),
            "M",
            round(sum(|step| &step.macs) / 1e6),
        ));
        found.push(figure(
            "cost",
            format!("{step}: bytes moved"),
            "kB",
            round(sum(|step| &step.bytes) / 1e3),
        ));
    };
    add("the spec's densities", &AsSpecified::of(model, tokens));
    for density in DENSITIES {
        add(&format!("density {density}"), &Even { tokens, density });
    }
}

/// What a program that scores is predicted to cost.
pub fn cost_of(subject: &Subject, program: &Program) -> Option<PlanCost> {
    let plan = subject.plans_of(program)?.linked.plan(SCORE)?;
    let launches: Vec<_> = program.entries.iter().map(|entry| entry.launch.clone()).collect();
    Some(match Machine::of(&program.target) {
        Machine::Host(host) => PlanCost::of(&plan, &host),
        Machine::Gpu(gpu) => PlanCost::on_gpu(&plan, &gpu, &launches),
    })
}

/// Three digits behind the point, so that sums in another order are the same.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// Every router executes the share that its spec says.
struct AsSpecified {
    tokens: f64,
    densities: BTreeMap<SetSym, f64>,
}

impl AsSpecified {
    fn of(model: &Model, tokens: f64) -> AsSpecified {
        let densities = (0..).zip(model.shares()).map(|(router, share)| (SetSym(router), share));
        AsSpecified { tokens, densities: densities.collect() }
    }
}

impl Counts for AsSpecified {
    fn tokens(&self) -> f64 {
        self.tokens
    }

    fn rows(&self, set: SetSym) -> f64 {
        self.tokens * self.densities.get(&set).copied().unwrap_or(1.0)
    }
}

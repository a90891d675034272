//! How two sets of kernels differ: equal ones are the same whatever their numbers, and of the rest those that do the same
//! work in the model are compared field by field.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};
use skipc_artifact::program::Program;

use super::KernelsDiff;
use super::graph::{Fate, folded};
use super::tree::{self, Change};
use crate::report::Subject;
use crate::report::subject::PlansOf;

/// A kernel that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KernelChange {
    /// What became of it.
    pub fate: Fate,
    /// Its symbol before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Its symbol after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// How often a step of each function runs it: before and after.
    pub runs: [usize; 2],
    /// Fields that differ, of those that both sides have.
    pub fields: Vec<Change>,
}

/// A kernel with what it is compared by.
struct Side {
    symbol: String,
    content: Value,
    launches: Value,
    runs: usize,
    /// Its name without the number.
    describe: String,
    /// Its kind and the places in the model that run it.
    work: String,
}

/// The kernels of each kind of target. Where both sides have one plan of a kind, these are compared whatever their precision.
pub(super) fn changes(before: &Subject, after: &Subject) -> Vec<KernelsDiff> {
    let mut left: Vec<&PlansOf> = after.plans.iter().collect();
    let mut pairs: Vec<[Option<&PlansOf>; 2]> = Vec::new();
    for plans in &before.plans {
        let same = left.iter().position(|of| of.name() == plans.name());
        let alike = same.or_else(|| left.iter().position(|of| of.kind == plans.kind));
        pairs.push([Some(plans), alike.map(|at| left.remove(at))]);
    }
    pairs.extend(left.into_iter().map(|plans| [None, Some(plans)]));
    pairs.into_iter().filter_map(|pair| of_plans(pair, [before, after])).collect()
}

fn of_plans(pair: [Option<&PlansOf>; 2], subjects: [&Subject; 2]) -> Option<KernelsDiff> {
    let mut sides = [0, 1].map(|idx| pair[idx].map_or_else(Vec::new, |plans| kernels(subjects[idx], plans)));
    let kernels = [0, 1].map(|idx| pair[idx].map(|_| sides[idx].len()));
    let mut changes = Vec::new();
    type Key = fn(&Side) -> String;
    let keys: [Key; 3] =
        [|side| side.content.to_string(), |side| side.describe.clone(), |side| side.work.clone()];
    for key in keys {
        let mut rest = Vec::new();
        for before in std::mem::take(&mut sides[0]) {
            match sides[1].iter().position(|after| key(after) == key(&before)) {
                Some(at) => changes.extend(change(Some(before), Some(sides[1].remove(at)))),
                None => rest.push(before),
            }
        }
        sides[0] = rest;
    }
    let [gone, added] = sides;
    changes.extend(gone.into_iter().filter_map(|side| change(Some(side), None)));
    changes.extend(added.into_iter().filter_map(|side| change(None, Some(side))));
    let names: BTreeSet<String> = pair.iter().flatten().map(|plans| plans.name()).collect();
    let plan = match pair {
        [Some(before), Some(after)] if names.len() > 1 => format!("{} → {}", before.name(), after.name()),
        _ => names.into_iter().next().unwrap_or_default(),
    };
    let differs = !changes.is_empty() || kernels[0].is_none() || kernels[1].is_none();
    differs.then_some(KernelsDiff { plan, kernels, changes })
}

/// `None` if the sides are the same.
fn change(before: Option<Side>, after: Option<Side>) -> Option<KernelChange> {
    let (fate, fields) = match (&before, &after) {
        (Some(before), Some(after)) => {
            let mut fields = tree::changes(&before.content, &after.content);
            fields.extend(tree::changes(&before.launches, &after.launches));
            (Fate::Changed, fields)
        }
        (Some(_), None) => (Fate::Gone, Vec::new()),
        _ => (Fate::Added, Vec::new()),
    };
    let runs = [&before, &after].map(|side| side.as_ref().map_or(0, |side| side.runs));
    if fate == Fate::Changed && fields.is_empty() && runs[0] == runs[1] {
        return None;
    }
    let symbol = |side: Option<Side>| side.map(|side| side.symbol);
    Some(KernelChange { fate, before: symbol(before), after: symbol(after), runs, fields })
}

fn kernels(subject: &Subject, plans: &PlansOf) -> Vec<Side> {
    let linked = &plans.linked;
    let of = |(idx, (symbol, kernel)): (usize, &(String, skipc_plan::kernel::Kernel))| {
        let steps = linked.functions.values().flat_map(|of| &of.function.steps);
        let steps: Vec<_> = steps.filter(|step| step.kernel as usize == idx).collect();
        let places: BTreeSet<String> = steps.iter().map(|step| folded(&step.origin)).collect();
        let content = serde_json::to_value(kernel).unwrap_or_default();
        let body =
            content.get("body").and_then(Value::as_object).and_then(|body| body.keys().next().cloned());
        Side {
            symbol: symbol.clone(),
            launches: launches(subject, plans, idx),
            runs: steps.len(),
            describe: symbol.split_once('_').map_or(symbol.as_str(), |(_, name)| name).to_owned(),
            work: format!("{body:?} {places:?}"),
            content,
        }
    };
    linked.kernels.iter().enumerate().map(of).collect()
}

/// How a kernel is started on each target of the plan.
fn launches(subject: &Subject, plans: &PlansOf, kernel: usize) -> Value {
    let is_of = |program: &&Program| program.target.kind() == plans.kind && program.dtype == plans.dtype;
    let of = subject.programs.iter().filter(is_of).map(|program| {
        let launch = program.entries.get(kernel).map(|entry| &entry.launch);
        (format!("launch on {}", program.target), json!(launch))
    });
    Value::Object(of.collect())
}

//! Group sizes and capacity factors against each other: what a step takes, and how many tokens lose their slot. Routers decide
//! freely, because a capacity limits what they want and not what is forced; all models run the same tokens in turns.

use std::time::Duration;

use serde::Serialize;
use skipc_runtime::Batch;
use toml_edit::{DocumentMut, Item, TableLike, Value};

use super::plot::{Chart, Curve, draw};
use super::report::Times;
use super::{SETS, Subject, Workload};
use crate::diagnostic::Diagnostic;
use crate::driver::pipeline::Request;
use crate::driver::trace::Trace;
use crate::error::{Error, ErrorKind};
use crate::frontend::spec;
use crate::frontend::spec::model::Model;
use crate::frontend::weights::Weights;

/// What is measured.
pub struct Settings {
    /// Sizes of groups.
    pub group_sizes: Vec<usize>,
    /// Capacity factors.
    pub factors: Vec<f64>,
    /// Tokens of a step.
    pub tokens: u32,
    /// Times that each runs.
    pub rounds: usize,
    /// Threads.
    pub threads: usize,
}

/// A group size and a factor, or neither.
#[derive(Clone, Debug, Serialize)]
pub struct CapacityRow {
    /// Tokens of a group and capacity factor; none for the model without capacities.
    pub capacity: Option<(usize, f64)>,
    /// Seconds of a step.
    pub times: Times,
    /// Median of the ratios of a round to the model without capacities.
    pub ratio: f64,
    /// Share of the tokens that execute, all routers together.
    pub executed: f64,
    /// Share of the tokens that want to execute and get no slot.
    pub lost: f64,
    /// Kernel runs of a step.
    pub kernels: usize,
}

/// A model with its capacity, its times, and the shares that execute and lose their slot.
type Measured = (((Option<(usize, f64)>, Subject), Vec<Duration>), (f64, f64));

/// Measures all combinations beside the model without capacities, which is the first row.
///
/// # Errors
/// A model none of whose routers takes a capacity, or as a compile.
pub fn capacities(
    (model, weights): (&Model, &Weights),
    settings: &Settings,
    turn: &mut dyn FnMut(),
) -> Result<Vec<CapacityRow>, Error> {
    let pairs = settings.group_sizes.iter().flat_map(|size| settings.factors.iter().map(|it| (*size, *it)));
    let all: Vec<Option<(usize, f64)>> = std::iter::once(None).chain(pairs.map(Some)).collect();
    let mut subjects = Vec::new();
    for capacity in &all {
        let model = limited(model, *capacity)?;
        let request = Request { max_tokens: Some(settings.tokens), ..Request::here() };
        subjects.push(Subject::compile((&model, weights), &request, settings.threads, &mut Trace::silent())?);
        turn();
    }
    let workload = Workload::new(&subjects, settings.tokens);
    let free = |batch: Batch| Batch { routing: None, ..batch };
    let batches: Vec<Batch> = workload.batches(1.0)?.into_iter().map(free).collect();
    let mut measured = vec![Vec::with_capacity(settings.rounds); subjects.len()];
    let mut shares = Vec::new();
    for subject in &mut subjects {
        let mut share = (0.0, 0.0);
        for batch in &batches {
            let (executed, lost) = executed(subject, batch)?;
            share = (share.0 + executed / SETS as f64, share.1 + lost / SETS as f64);
        }
        shares.push(share);
    }
    for round in 0..settings.rounds {
        for (subject, times) in subjects.iter_mut().zip(&mut measured) {
            times.push(subject.time(&batches[round % SETS])?);
        }
        turn();
    }
    let Some(free) = measured.first().cloned() else { return Ok(Vec::new()) };
    let rows = all.into_iter().zip(subjects).zip(measured).zip(shares);
    let row = |(((capacity, subject), times), (executed, lost)): Measured| {
        let pairs = times.iter().zip(&free);
        let mut ratios: Vec<f64> = pairs.map(|(own, free)| own.div_duration_f64(*free)).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or(1.0);
        let kernels = subject.function().steps.len();
        CapacityRow { capacity, times: Times::of(&times), ratio, executed, lost, kernels }
    };
    Ok(rows.map(row).collect())
}

/// Share of the tokens that execute, and of those that want to and do not.
fn executed(subject: &mut Subject, batch: &Batch) -> Result<(f64, f64), Error> {
    let outputs = subject.run(batch)?;
    let sum = |counts: &[u32]| counts.iter().map(|count| f64::from(*count)).sum::<f64>();
    let (executed, over) = (sum(&outputs.counts), sum(&outputs.overflow));
    let asked = (batch.tokens.len() * outputs.counts.len()) as f64;
    Ok((executed / asked.max(1.0), over / (executed + over).max(1.0)))
}

/// The model with this capacity at every router that takes one.
fn limited(model: &Model, capacity: Option<(usize, f64)>) -> Result<Model, Error> {
    let text = model.to_string();
    let mut spec: DocumentMut = text.parse().map_err(|error| Error::internal("report::spec", &error))?;
    let mut found = 0;
    if let Some(blocks) = spec.get_mut("block").and_then(Item::as_table_like_mut) {
        for (_, block) in blocks.iter_mut() {
            let Some(block) = block.as_table_like_mut() else { continue };
            found += limit(block, capacity);
            let layers = block.get_mut("layers").and_then(Item::as_array_mut);
            for layer in layers.into_iter().flat_map(toml_edit::Array::iter_mut) {
                found += layer.as_inline_table_mut().map_or(0, |layer| limit(layer, capacity));
            }
        }
    }
    if found == 0 {
        let message = format!("no router of {} takes a capacity", model.name);
        let help = "give a model with routers such as `gumbel` or `sigmoid`";
        return Err(Error::new(ErrorKind::Input, Diagnostic::new("bench::no_capacity", message).help(help)));
    }
    Ok(spec::model("the spec with a capacity", &spec.to_string())?)
}

/// Writes the capacity into the skip of a block or layer. A resolved spec names `group_size` where a router takes one.
fn limit(of: &mut dyn TableLike, capacity: Option<(usize, f64)>) -> usize {
    let skip = of.get_mut("skip").and_then(Item::as_table_like_mut);
    let Some(skip) = skip.filter(|skip| skip.contains_key("group_size")) else { return 0 };
    let (size, factor) = match capacity {
        Some((size, factor)) => (size, Some(factor)),
        None => (0, None),
    };
    skip.insert("group_size", Item::Value(Value::from(size as i64)));
    match factor {
        Some(factor) => drop(skip.insert("capacity_factor", Item::Value(Value::from(factor)))),
        None => {
            skip.remove("capacity_factor");
            skip.remove("overflow");
        }
    }
    1
}

/// Time against the size of groups, a curve a factor.
///
/// # Errors
/// If it cannot be drawn: a fault of skipc.
pub fn svg(title: String, rows: &[CapacityRow]) -> Result<String, Error> {
    let mut curves: Vec<Curve> = Vec::new();
    for row in rows {
        let Some((size, factor)) = row.capacity else { continue };
        let name = format!("factor {factor}");
        let at = curves.iter().position(|curve| curve.name == name).unwrap_or_else(|| {
            curves.push(Curve { name, points: Vec::new(), band: Vec::new() });
            curves.len() - 1
        });
        curves[at].points.push(((size as f64).log2(), row.ratio));
    }
    draw(&[Chart {
        title,
        subtitle: super::processor(),
        x: "tokens of a group, as a power of two",
        y: "time of a step, against the model without capacities",
        curves,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "[model]\nname = \"t\"\nvocab_size = 8\nd_model = 16\nmax_positions = 32\nnorm = \"rmsnorm\"\npositions = \"none\"\ntie_embeddings = true\n\n[block.a]\nskip = { router = \"gumbel\", density = 0.25 }\nlayers = [{ kind = \"ffn\", d_ff = 32, activation = \"relu\" }]\n\n[block.b]\nlayers = [{ kind = \"ffn\", d_ff = 32, activation = \"relu\", skip = { router = \"sigmoid\", density = 0.5, group_size = 8 } }]\n\n[[stack]]\nblocks = [\"a\", \"b\"]\n";

    #[test]
    fn every_router_gets_the_capacity() {
        let model = spec::model("t.toml", SPEC).unwrap_or_else(|error| panic!("{error}"));
        let slots = |model: &Model| -> Vec<Option<usize>> {
            model.skips().map(|skip| skip.capacity().map(|it| it.slots(skip.density))).collect()
        };
        assert_eq!(slots(&model), [None, Some(5)]);
        let with = limited(&model, Some((16, 1.25))).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(slots(&with), [Some(5), Some(10)]);
        let without = limited(&model, None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(slots(&without), [None, None]);
        let dense = SPEC.replace("skip = { router = \"gumbel\", density = 0.25 }\n", "");
        let dense = dense.replace(", skip = { router = \"sigmoid\", density = 0.5, group_size = 8 }", "");
        let dense = spec::model("t.toml", &dense).unwrap_or_else(|error| panic!("{error}"));
        assert!(limited(&dense, None).is_err_and(|error| error.to_string().contains("takes a capacity")));
    }
}

//! `skipc check`: everything that can be said about a model without compiling it.

use serde_json::json;

use super::{CheckArgs, Failure, to_json};
use crate::spec::weights::{self, Weights};
use crate::{pipeline, spec};

pub(super) fn run(args: &CheckArgs, json: bool) -> Result<String, Failure> {
    let model = spec::load(&args.spec)?;
    let graph = pipeline::check(&model)?;
    if let Some(path) = &args.weights {
        Weights::open(path, &model)?;
    }
    let n_weights: usize =
        weights::tensors(&model).iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let n_routers = graph.outputs().filter(|(name, _)| name.starts_with("gate.")).count();
    if json {
        return to_json(&json!({
            "model": model,
            "parameters": n_weights,
            "routers": n_routers,
            "nodes": graph.len(),
            "weights_checked": args.weights.is_some(),
        }));
    }
    let weights = if args.weights.is_some() { ", weights fit" } else { "" };
    Ok(format!(
        "{model}\n# {} blocks, {n_routers} routers, {n_weights} parameters, {} graph nodes{weights}\n",
        model.blocks.len(),
        graph.len(),
    ))
}

//! `skipc check`: everything that can be said about a model without compiling it.

use serde_json::json;

use super::{CheckArgs, show, to_json};
use crate::diagnostic::Diagnostics;
use crate::driver::pipeline;
use crate::error::{Error, ErrorKind};
use crate::frontend::lint::{self, Denied};
use crate::frontend::spec;
use crate::frontend::spec::model::Model;
use crate::frontend::spec::tensors::tensors;
use crate::frontend::weights::Weights;

pub(super) fn run(args: &CheckArgs, json: bool) -> Result<String, Error> {
    let denied = Denied::parse(&args.deny).map_err(|error| Error::new(ErrorKind::Request, error))?;
    let (ast, model) = spec::load_with_places(&args.spec)?;
    let (findings, is_denied) = denied.apply(lint::run(&ast, &model));
    if is_denied {
        return Err(findings.into());
    }
    match report(args, &model, &findings, json) {
        Ok(text) => {
            if !json {
                show(&findings);
            }
            Ok(text)
        }
        Err(error) => Err(error.and(findings)),
    }
}

fn report(args: &CheckArgs, model: &Model, warnings: &Diagnostics, json: bool) -> Result<String, Error> {
    let graph = pipeline::check(model)?;
    if let Some(path) = &args.weights {
        Weights::open(path, model)?;
    }
    let n_weights: usize = tensors(model).iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let n_routers = graph.decisions().count();
    if json {
        return to_json(&json!({
            "model": model,
            "parameters": n_weights,
            "routers": n_routers,
            "nodes": graph.len(),
            "weights_checked": args.weights.is_some(),
            "warnings": warnings.iter().collect::<Vec<_>>(),
        }));
    }
    let weights = if args.weights.is_some() { ", weights fit" } else { "" };
    Ok(format!(
        "{model}\n# {} blocks, {n_routers} routers, {n_weights} parameters, {} graph nodes{weights}\n",
        model.blocks.len(),
        graph.len(),
    ))
}

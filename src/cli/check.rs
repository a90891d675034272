//! `skipc check`: everything that can be said about a model without compiling it.

use serde_json::json;

use super::{CheckArgs, show, source, to_json};
use crate::diagnostic::Diagnostics;
use crate::driver::pipeline;
use crate::error::{Error, ErrorKind};
use crate::frontend::lint::{self, Denied};
use crate::frontend::source::Source;
use crate::frontend::spec::tensors::tensors;

pub(super) fn run(args: &CheckArgs, json: bool) -> Result<String, Error> {
    let denied = Denied::parse(&args.deny).map_err(|error| Error::new(ErrorKind::Request, error))?;
    let source = source::open_with_weights(&args.spec, &args.checkpoint)?;
    let (findings, is_denied) = denied.apply(lint::run(&source.ast, &source.model));
    if is_denied {
        return Err(findings.into());
    }
    let findings = source.notes().and(findings);
    match report(args, &source, &findings, json) {
        Ok(text) => {
            if !json {
                show(&findings);
            }
            Ok(text)
        }
        Err(error) => Err(error.and(findings)),
    }
}

fn report(args: &CheckArgs, source: &Source, warnings: &Diagnostics, json: bool) -> Result<String, Error> {
    let model = &source.model;
    let graph = pipeline::check(model)?;
    let weights = source::weights(source, args.weights.as_deref(), &args.checkpoint)?;
    let n_weights: usize = tensors(model).iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum();
    let n_routers = graph.decisions().count();
    if json {
        return to_json(&json!({
            "model": model,
            "parameters": n_weights,
            "routers": n_routers,
            "nodes": graph.len(),
            "weights_checked": weights.is_some(),
            "warnings": warnings.iter().collect::<Vec<_>>(),
        }));
    }
    let weights = if weights.is_some() { ", weights fit" } else { "" };
    Ok(format!(
        "{model}\n# {} blocks, {n_routers} routers, {n_weights} parameters, {} graph nodes{weights}\n",
        model.blocks.len(),
        graph.len(),
    ))
}

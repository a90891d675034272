//! The graph of a function after each phase of the compile.

use skipc_ir::Graph;
use skipc_passes::run_reported;

use crate::driver::pipeline::{self, Request};
use crate::error::Error;
use crate::frontend::lower::Function;
use crate::frontend::spec::model::Model;

/// A graph and the phase that made it.
pub struct Phase {
    /// `lowered`, the name of a pass (with a number if it ran before), or `legal`.
    pub name: String,
    /// The graph after it.
    pub graph: Graph,
}

/// The phases from `lowered` to `legal`: the passes of the request run again over the first, and are left out if they do
/// not end at the second.
///
/// # Errors
/// Passes that no longer exist.
pub(super) fn between(
    lowered: Graph,
    legal: Graph,
    of: (&Model, Function),
    request: &Request,
) -> Result<Vec<Phase>, Error> {
    let (names, options) = pipeline::passes(of, request);
    let mut phases = vec![Phase { name: "lowered".to_owned(), graph: lowered.clone() }];
    let ran = run_reported(lowered, &names, &options, &mut |pass, graph| {
        let runs = phases.iter().filter(|phase| phase.name.split('-').next() == Some(pass)).count();
        let name = if runs == 0 { pass.to_owned() } else { format!("{pass}-{}", runs + 1) };
        phases.push(Phase { name, graph: graph.clone() });
    });
    if !ran.is_ok_and(|(graph, _)| graph.to_string() == legal.to_string()) {
        phases.truncate(1);
    }
    phases.push(Phase { name: "legal".to_owned(), graph: legal });
    Ok(phases)
}

//! The table of all passes: one row a pass.

use skipc_ir::legal::LegalError;
use skipc_ir::{Facts, Graph};

use crate::rewrite::{RewriteError, Rewrites};
use crate::{Options, Patch, canonicalize, cse, dce, legalize, rewrite, routing};

/// One row of the table.
#[derive(Debug)]
pub struct PassInfo {
    /// The word in `--passes`, where `-` is as good as `_`.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// What must hold before, beyond a verified graph.
    pub needs: &'static str,
    /// What holds after.
    pub ensures: &'static str,
    /// Its code.
    pub run: Run,
}

impl PassInfo {
    /// Whether values may round differently afterwards.
    pub fn may_round(&self) -> bool {
        matches!(self.run, Run::Rewrite(_))
    }
}

/// The code of a pass.
#[derive(Clone, Copy, Debug)]
pub enum Run {
    /// Returns the edits that it wants; none if it has nothing left to do.
    Edit(fn(&Graph, &Facts) -> Vec<Patch>),
    /// Returns edits that together make the graph cheaper, in one go, or the rule that is at fault. Values may round
    /// differently afterwards.
    Rewrite(fn(&Graph, &Facts, &Options) -> Result<Rewrites, RewriteError>),
    /// Changes nothing and says whether what comes next can take the graph.
    Gate(fn(&Graph) -> Result<(), Vec<LegalError>>),
}

macro_rules! passes {
    ($(
        $(#[doc = $doc:literal])+
        $name:literal needs $needs:literal ensures $ensures:literal = $run:expr;
    )+) => {
        /// All passes.
        pub const TABLE: &[PassInfo] = &[
            $(PassInfo { name: $name, doc: concat!($($doc, "\n"),+), needs: $needs, ensures: $ensures, run: $run },)+
        ];
    };
}

passes! {
    /// Replaces a computation by a simpler one of the same value.
    "canonicalize" needs "nothing" ensures "no pattern of its list is left" = Run::Edit(canonicalize::edits);
    /// Lets routes with the same scores and attributes share one token set.
    "merge_routes" needs "nothing" ensures "one route for each decision" = Run::Edit(routing::merge_routes::edits);
    /// Computes what is computed twice once.
    "cse" needs "nothing" ensures "no two nodes of equal op and operands, routes aside" = Run::Edit(cse::edits);
    /// Gives each block of the model the cheapest form that the rules find, at the densities of its routers.
    "saturate" needs "nothing" ensures "no block costs more than before" = Run::Rewrite(rewrite::edits);
    /// Lets the routers of a run of layers see the rows with which the run begins, in one matmul, and again those that a layer changed.
    "collapse_runs" needs "nothing" ensures "no router alone reads what layers scattered" = Run::Edit(routing::collapse_runs::edits);
    /// Removes what no output depends on.
    "dce" needs "nothing" ensures "every node is used" = Run::Edit(dce::edits);
    /// Checks that the backends can compile the graph.
    "legalize" needs "nothing" ensures "the graph is legal" = Run::Gate(legalize::check);
}

/// The passes that the compiler runs if nobody asks for others. The order is explained in the crate's documentation.
pub fn default_pipeline() -> Vec<String> {
    ["merge_routes", "cse", "canonicalize", "saturate", "cse", "dce"].map(str::to_owned).to_vec()
}

/// [`default_pipeline`] for steps of generation, few of whose rows execute a layer.
pub fn step_pipeline() -> Vec<String> {
    ["merge_routes", "cse", "canonicalize", "saturate", "collapse_runs", "cse", "dce"]
        .map(str::to_owned)
        .to_vec()
}

/// [`default_pipeline`] without `saturate`: what keeps every bit of every value.
pub fn plain_pipeline() -> Vec<String> {
    ["merge_routes", "cse", "canonicalize", "cse", "dce"].map(str::to_owned).to_vec()
}

/// The pass of this name.
pub fn find(name: &str) -> Option<&'static PassInfo> {
    let name = name.replace('-', "_");
    TABLE.iter().find(|info| info.name == name)
}

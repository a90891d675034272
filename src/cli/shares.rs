//! How much of a model ran: the executed share of every router.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;
use skipc_runtime::Decisions;
use skipc_runtime::choices::{self, Choices};
use skipc_runtime::command::{self, RunArgs};
use skipc_runtime::words::counted;

use super::open_index;
use crate::driver::original::model_of;
use crate::error::Error;
use crate::frontend::language::words::Word;
use crate::frontend::layer::Experts;
use crate::frontend::spec::model::Model;
use crate::frontend::spec::skip::Skip;
use crate::frontend::spec::skip_table::Router;

/// One router's share.
#[derive(Debug, Serialize)]
struct Share {
    /// What it decides about, such as `blocks.3` or `blocks.3.layers.1`.
    scope: String,
    /// Kind of router.
    router: String,
    /// Wanted share, of a router that decides by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    density: Option<f64>,
    /// Tokens that executed.
    executed: u64,
    /// Tokens that it decided about.
    tokens: u64,
    /// Tokens that it wanted to execute beyond its capacity, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    over_capacity: Option<u32>,
}

/// What the choices of a layer of experts have.
#[derive(Debug, Serialize)]
struct LayerLoads {
    /// Where it runs, such as `blocks.3.layers.1`.
    scope: String,
    /// How many tokens took each choice: of experts, then of those that give nothing, then of those that give their input.
    loads: Vec<u64>,
    /// How many times the mean the highest of them is; none where nobody chose.
    highest_over_mean: Option<f64>,
}

/// Shares of all routers of a model, in model order, and of the choices of its experts.
#[derive(Debug, Serialize)]
pub(super) struct Shares {
    routers: Vec<Share>,
    /// By layer, in the order in which they run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    experts: Vec<LayerLoads>,
    /// Blocks without any router run for every token.
    dense_blocks: usize,
    blocks: usize,
}

impl Shares {
    /// Shares of a run with these decisions.
    pub(super) fn new(model: &Model, decisions: &Decisions) -> Shares {
        let tokens = decisions.gates.first().map_or(0, Vec::len) as u64;
        let executed = |gate: &Vec<u8>| gate.iter().filter(|executes| **executes != 0).count() as u64;
        let mut shares = Shares::of_counts(model, tokens, decisions.gates.iter().map(executed));
        for (share, over) in shares.routers.iter_mut().zip(&decisions.overflow) {
            share.over_capacity = *over;
        }
        let loads = |((scope, _), layer): ((String, Experts), &Choices)| {
            let loads = layer.loads();
            LayerLoads { scope, highest_over_mean: choices::highest_over_mean(&loads), loads }
        };
        shares.experts = model.expert_layers().into_iter().zip(&decisions.choices).map(loads).collect();
        shares
    }

    /// Shares of so many tokens, of which each router executed these.
    pub(super) fn of_counts(model: &Model, tokens: u64, executed: impl IntoIterator<Item = u64>) -> Shares {
        let share = |((scope, skip), executed): ((String, &Skip), u64)| Share {
            scope,
            router: Router::of(skip).word().to_owned(),
            density: skip.has_density().then_some(skip.density),
            executed,
            tokens,
            over_capacity: None,
        };
        let routers = model.routers().into_iter().zip(executed).map(share).collect();
        let undecided = model.repetitions().into_iter().filter(|repetition| repetition.skip.is_none());
        let dense_blocks = undecided
            .flat_map(|repetition| repetition.blocks)
            .filter(|(_, block)| block.skips().next().is_none())
            .count();
        Shares { routers, experts: Vec::new(), dense_blocks, blocks: model.blocks.len() }
    }

    /// A line with a bar for each router.
    pub(super) fn text(&self) -> String {
        const BAR: usize = 40;
        let mut out = String::new();
        let width = self.routers.iter().map(|share| share.scope.len()).max().unwrap_or(0);
        for share in &self.routers {
            let rate = share.executed as f64 / share.tokens.max(1) as f64;
            let filled = (rate * BAR as f64).round() as usize;
            let density = share.density.map(|density| format!(", density {density}")).unwrap_or_default();
            let over = share.over_capacity.map(|over| format!(", {over} over capacity")).unwrap_or_default();
            let _ = writeln!(
                out,
                "{:width$}  {:5.1} %  {}{}  {} of {}{over} ({}{density})",
                share.scope,
                rate * 100.0,
                "█".repeat(filled),
                "·".repeat(BAR - filled.min(BAR)),
                share.executed,
                counted(share.tokens, "token"),
                share.router,
            );
        }
        let _ = writeln!(out, "{} of {} blocks run for every token", self.dense_blocks, self.blocks);
        let width = self.experts.iter().map(|layer| layer.scope.len()).max().unwrap_or(0);
        for LayerLoads { scope, loads, .. } in &self.experts {
            let _ = writeln!(out, "{scope:width$}  {}", choices::balance(loads));
        }
        out
    }
}

/// Names of what each router decides about, in model order.
pub(super) fn names(model: &Model) -> Vec<String> {
    model.routers().into_iter().map(|(name, _)| name).collect()
}

/// Names of the layers of experts, in the order in which they run.
pub(super) fn names_of_experts(model: &Model) -> Vec<String> {
    model.expert_layers().into_iter().map(|(name, _)| name).collect()
}

/// Shares of a run of these tokens on the host.
pub(super) fn of_run(path: &Path, tokens: &Path, trust: Option<&Path>) -> Result<Shares, Error> {
    let scoring = RunArgs::scoring(path.to_owned());
    let args = RunArgs { tokens: Some(tokens.to_owned()), trust: trust.map(Path::to_owned), ..scoring };
    let decisions = command::run(&args, &mut std::io::sink())?;
    Ok(Shares::new(&model_of(&open_index(path)?, path)?, &decisions))
}

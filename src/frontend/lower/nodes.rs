//! The nodes of a block: sequences, layers with their residuals, and what is routed.

use skipc_ir::{Binary, Op, Value};

use super::{Ctx, LowerError, Tokens};
use crate::frontend::build::{Build, LayerInput, TokenRows};
use crate::frontend::spec::node::{Block, Layers, Node, SubLayer, Unit};
use crate::frontend::spec::skip::Kv;
use crate::frontend::spec::stack::BlockRun;

/// The rows on which a node runs.
#[derive(Clone, Copy)]
pub(super) struct Branch {
    /// Rows that are computed.
    pub(super) rows: Tokens,
    /// Rows that are kept, if not all are.
    pub(super) executed: Option<Tokens>,
    /// Which tokens are keys.
    pub(super) kv: Kv,
    /// What all tokens would become if they executed: later layers go on from that, and not from the stream as it stands.
    pub(super) would_be: bool,
}

/// The stream at a node.
#[derive(Clone, Copy)]
pub(super) struct Stream {
    /// Over all tokens: where keys and values are those of all tokens, they come from it.
    pub(super) all: Value,
    /// Over the rows of the branch.
    pub(super) rows: Value,
}

/// A node with its place.
pub(super) type Placed<'m> = (&'m Node, InBlock);

/// A block on the way through it.
#[derive(Clone, Copy)]
pub(super) struct InBlock {
    /// Where the block runs, and its weights.
    pub(super) block: BlockRun,
    /// Which of its lists of layers it is.
    pub(super) layers: Layers,
    /// Index of the next layer.
    pub(super) layer: usize,
    /// The stream as it entered the block.
    pub(super) entry: Value,
}

impl Branch {
    pub(super) fn all(rows: Tokens) -> Branch {
        Branch { rows, executed: None, kv: Kv::All, would_be: false }
    }
}

impl InBlock {
    /// The place of the next layer in the order in which blocks run.
    pub(super) fn next(&self) -> String {
        self.layers.name(self.block.run, self.layer)
    }

    /// The place behind a node.
    pub(super) fn behind(self, node: &Node) -> InBlock {
        InBlock { layer: self.layer + node.n_layers(), ..self }
    }

    /// The nodes of a sequence, each in its place; another node is a sequence of one.
    pub(super) fn sequence(mut self, node: &Node) -> Vec<Placed<'_>> {
        let nodes = match node {
            Node::Sequence(nodes) => &nodes[..],
            node => std::slice::from_ref(node),
        };
        let mut placed = |node| {
            let within = self;
            self = self.behind(node);
            (node, within)
        };
        nodes.iter().map(&mut placed).collect()
    }
}

impl Ctx<'_> {
    /// The stream behind a block.
    pub(super) fn block(&mut self, x: Value, block: &Block, run: BlockRun) -> Result<Value, LowerError> {
        let within = InBlock { block: run, layers: Layers::Block, layer: 0, entry: x };
        match &block.body {
            Node::Route(route) => self.route(x, route, Unit::Block, within),
            body => self.node(Stream { all: x, rows: x }, body, Branch::all(self.all), within),
        }
    }

    /// The rows of the branch in front of the last of these nodes, and behind it. What runs in parallel is one node.
    pub(super) fn ends(
        &mut self,
        x: Stream,
        nodes: &[Placed<'_>],
        branch: Branch,
    ) -> Result<[Value; 2], LowerError> {
        let (base, mut x, mut before) = (x.all, x, x.rows);
        for (idx, (node, within)) in nodes.iter().enumerate() {
            if idx > 0 {
                // Later nodes see what the earlier ones made of the executed tokens.
                self.at(&within.next());
                x.all = self.keep_executed(base, x.rows, branch)?;
                if branch.rows.set.is_none() && !branch.would_be {
                    x.rows = x.all;
                }
            }
            before = x.rows;
            x.rows = self.node(x, node, branch, *within)?;
        }
        Ok([before, x.rows])
    }

    /// The rows of the branch behind a node.
    pub(super) fn node(
        &mut self,
        x: Stream,
        node: &Node,
        branch: Branch,
        mut within: InBlock,
    ) -> Result<Value, LowerError> {
        match node {
            Node::Sequence(_) => Ok(self.ends(x, &within.sequence(node), branch)?[1]),
            Node::Parallel(nodes) => {
                let mut sum = x.rows;
                for node in nodes {
                    let change = match node {
                        Node::Residual(layer) => self.change(x, layer, branch, within)?,
                        _ => {
                            let behind = self.node(x, node, branch, within)?;
                            self.add(Binary::Sub, &[behind, x.rows])?
                        }
                    };
                    within = within.behind(node);
                    sum = self.add(Binary::Add, &[sum, change])?;
                }
                Ok(sum)
            }
            Node::Residual(layer) => {
                let change = self.change(x, layer, branch, within)?;
                self.add(Binary::Add, &[x.rows, change])
            }
            Node::Route(_) if branch.executed.is_some() => Err(LowerError::Nested { origin: within.next() }),
            Node::Route(route) => self.route(x.rows, route, Unit::Layer(within.layer), within),
        }
    }

    /// What a layer adds to the rows of the branch.
    fn change(
        &mut self,
        x: Stream,
        layer: &SubLayer,
        branch: Branch,
        within: InBlock,
    ) -> Result<Value, LowerError> {
        let place = (within.layers, within.block.weights, within.layer);
        let name = within.next();
        self.at(&name);
        self.refuse_layer(&name, layer)?;
        let rows = rows(x.rows, branch.rows);
        let seen = if layer.layer.mixes_tokens() { self.seen(x, branch)? } else { rows };
        let executed = match branch.rows.set {
            Some(_) => None,
            None => branch.executed.and_then(|executed| executed.set),
        };
        layer.build(self, place, LayerInput { rows, seen, executed, block: within.block.run })
    }

    /// What generation cannot have.
    fn refuse_layer(&self, name: &str, layer: &SubLayer) -> Result<(), LowerError> {
        layer.layer.looks_ahead().map_or(Ok(()), |(_, what)| self.refuse_to_look_ahead(name, what))
    }

    /// The rows at which those of the branch look.
    fn seen(&mut self, x: Stream, branch: Branch) -> Result<TokenRows<Value>, LowerError> {
        if let (Kv::All, Some(Tokens { set: Some(set), .. })) = (branch.kv, branch.executed)
            && let Some(rows) = self.pending(x.all, set)?
        {
            return Ok(rows);
        }
        Ok(match (branch.kv, branch.executed, branch.rows.set) {
            (Kv::Active, Some(executed), Some(_)) => rows(x.rows, executed),
            (Kv::Active, Some(executed @ Tokens { set: Some(set), .. }), None) => {
                rows(self.add(Op::Gather {}, &[x.rows, set])?, executed)
            }
            _ => rows(x.all, self.all),
        })
    }

    /// The stream over all tokens: rows of the branch where a token executes, else those of `base`.
    pub(super) fn keep_executed(
        &mut self,
        base: Value,
        rows: Value,
        branch: Branch,
    ) -> Result<Value, LowerError> {
        let Some(set) = branch.executed.and_then(|executed| executed.set) else { return Ok(rows) };
        let rows = match branch.rows.set {
            Some(_) => rows,
            None => self.add(Op::Gather {}, &[rows, set])?,
        };
        self.add(Op::Scatter {}, &[base, rows, set])
    }
}

fn rows(stream: Value, tokens: Tokens) -> TokenRows<Value> {
    TokenRows { stream, positions: tokens.positions, sequences: Some(tokens.sequences), set: tokens.set }
}

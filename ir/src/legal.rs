//! The gate before the plan: what the backends can do. [`legalize`] alone makes a [`Legal`].
//!
//! Legal is a graph that [`verify`](fn@verify) accepts and in which
//! - the results are logits, numbers `[n, v]` (or of the rows `logit_rows` alone, if that is an input), and the decisions of the routers 0, 1, … in order, each `mask[n]`; after that of
//!   a router may stand what it wanted before its capacity, `mask[n]`; and the choices of the layers of experts 0, 1, … in
//!   order, each `f32[n, k]`. Results of a name may stand anywhere: numbers that an op computes or an input, an input of integers
//!   or bits, or `executed` of a set; a graph that has some, as one of training, may lack logits;
//! - every token set selects from `n`, or, as `pending` makes it, from a cache: no sets of sets;
//! - every tensor has at most 2²⁰ columns and every weight fewer than 2³¹ elements, so that kernels can index with 32 bits;
//! - ops of training are over f32 and have a kernel;
//! - heads are at most 256 wide;
//! - `router_logits` has at most 1024 columns;
//! - `f32` values are what decides, scales or is kept: they are operands of pointwise ops, `choose`, `slice`, `sequence_mean`, `route`,
//!   `gather`, `scatter` and of updates of states only;
//! - integers come from the input that the op means: ids of `embed` and `route_random` from tokens or positions; positions
//!   and sequences of the others from positions and sequences (of `route_random` from requests, too), places and pages
//!   of a cache from the inputs of that name. That makes rows of keys ordered by (sequence, position),
//!   which attention kernels rely on;
//! - states go out under their names; masks are results, or stored in a cache as `executed` makes them.
//!
//! Not checked: precision and instructions of a target (its capability table), sizes of buffers (the plan).

use crate::elementwise::Unary;
use crate::graph::{Graph, Value};
use crate::ops::{Op, Trait};
use crate::port::{Port, Role, RoleText};
use crate::text::{NodeLocation, Numbering};
use crate::training::Training;
use crate::ty::{Dim, Elem, SetSym, Type};
use crate::verify::{Facts, Findings, VerifyError, verify};

/// Columns that a tensor may have: beyond every vocabulary in use, and a row of f32 still fits in 4 MiB.
pub const MAX_COLS: u32 = 1 << 20;

/// Elements that a weight may have: the largest signed 32-bit index.
pub const MAX_WEIGHT_ELEMENTS: u64 = (1 << 31) - 1;

/// Columns that a head may have: what an attention kernel keeps in registers.
pub const MAX_HEAD_WIDTH: u32 = 256;

/// A graph that backends can compile, with its facts.
#[derive(Clone, Debug)]
pub struct Legal {
    graph: Graph,
    facts: Facts,
}

impl Legal {
    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What the verifier found about it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Gives the graph back, for further passes.
    pub fn into_graph(self) -> Graph {
        self.graph
    }
}

/// Why a graph is not legal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LegalError {
    /// It is not well-formed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// No result is the logits, and none has a name of its own.
    #[error("the graph has neither `logits` nor a result of a name")]
    NoLogits,
    /// A result has a role that the runtime does not know, or that of a router out of order.
    #[error(
        "`{}` is neither `logits` nor the next decision, `decision {next}`, nor the choices of the next layer",
        RoleText(role)
    )]
    ResultRole {
        /// The result.
        role: Role,
        /// How many decisions came before it.
        next: u32,
    },
    /// A result has another type than its role asks for.
    #[error("`{}` should be {wanted}\n  {place}", RoleText(role))]
    ResultType {
        /// The result.
        role: Role,
        /// What it should be.
        wanted: &'static str,
        /// The node.
        place: NodeLocation,
    },
    /// A set selects from the rows of another set.
    #[error("the token set {sym} selects from {of}; backends make sets of all tokens n only\n  {place}")]
    NestedSet {
        /// The set.
        sym: SetSym,
        /// What it selects from.
        of: Dim,
        /// The node.
        place: NodeLocation,
    },
    /// Something is too wide or too large.
    #[error("{what} is {got}, the limit is {limit}\n  {place}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        got: u64,
        /// How large it may be.
        limit: u64,
        /// The node.
        place: NodeLocation,
    },
    /// An op takes an operand of a kind that it has no kernel for.
    #[error("`{op}` over {elem} has no kernel: operand `{operand}`\n  {place}")]
    OperandElem {
        /// The op's name.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// What its elements are.
        elem: Elem,
        /// The node.
        place: NodeLocation,
    },
    /// No backend has a kernel of the op.
    #[error("no backend has a kernel of `{op}`; the reference interpreter runs it\n  {place}")]
    NoKernel {
        /// The op's name.
        op: &'static str,
        /// The node.
        place: NodeLocation,
    },
    /// Integers come from an input that the op does not mean.
    #[error("`{op}`: operand `{operand}` should come from the input {wanted}\n  {place}")]
    Source {
        /// The op's name.
        op: &'static str,
        /// The operand's name.
        operand: &'static str,
        /// The input or inputs it may come from.
        wanted: &'static str,
        /// The node.
        place: NodeLocation,
    },
}

impl LegalError {
    /// The word in `error[…]`.
    pub fn code(&self) -> &'static str {
        match self {
            LegalError::Verify(error) => error.code(),
            LegalError::NoLogits | LegalError::ResultRole { .. } | LegalError::ResultType { .. } => {
                "legal::output"
            }
            LegalError::NestedSet { .. } => "legal::nested_set",
            LegalError::TooLarge { .. } => "legal::too_large",
            LegalError::OperandElem { .. } => "legal::operand_kind",
            LegalError::NoKernel { .. } => "legal::no_kernel",
            LegalError::Source { .. } => "legal::source",
        }
    }
}

/// Checks that the backends can compile the graph; changes nothing.
///
/// # Errors
/// All that is not legal, in the order of the text form; the first 100.
pub fn legalize(graph: Graph) -> Result<Legal, Vec<LegalError>> {
    let facts =
        verify(&graph).map_err(|errors| errors.into_iter().map(LegalError::from).collect::<Vec<_>>())?;
    let mut ctx =
        Ctx { graph: &graph, facts: &facts, numbering: Numbering::new(&graph), errors: Findings(Vec::new()) };
    for value in facts.order() {
        ctx.sizes(*value);
        ctx.operands(*value);
    }
    ctx.results();
    let errors = ctx.errors.0;
    if errors.is_empty() { Ok(Legal { graph, facts }) } else { Err(errors) }
}

struct Ctx<'a> {
    graph: &'a Graph,
    facts: &'a Facts,
    numbering: Numbering,
    errors: Findings<LegalError>,
}

impl Ctx<'_> {
    fn place(&self, value: Value) -> NodeLocation {
        self.numbering.place(self.graph, value)
    }

    fn at_most(&mut self, value: Value, what: &'static str, got: u64, limit: u64) {
        if got > limit {
            let place = self.place(value);
            self.errors.push(LegalError::TooLarge { what, got, limit, place });
        }
    }

    fn sizes(&mut self, value: Value) {
        let (graph, ty) = (self.graph, self.graph.ty(value));
        self.at_most(value, "the number of columns", ty.cols().into(), MAX_COLS.into());
        // The rows of a partition are its own, so that those of a set may be cut into segments.
        if let Type::Set { sym, of } = *ty
            && !matches!(of, Dim::Tokens | Dim::Cached)
        {
            let place = self.place(value);
            self.errors.push(LegalError::NestedSet { sym, of, place });
        }
        let op = graph.op(value);
        if op.has(Trait::Constant) {
            let sizes = ty.as_tensor().into_iter().flat_map(|(_, dims)| dims);
            let elements = sizes.fold(1, |all: u64, size| match size {
                Dim::Fixed(size) => all.saturating_mul((*size).into()),
                Dim::Tokens | Dim::Count(_) | Dim::Cached => all,
            });
            self.at_most(value, "the number of elements", elements, MAX_WEIGHT_ELEMENTS);
        }
        if let Op::Rope { heads, .. } | Op::Attention { heads, .. } | Op::CachedAttention { heads, .. } = op {
            let width = ty.cols().checked_div(*heads).unwrap_or(0);
            self.at_most(value, "the width of a head", width.into(), MAX_HEAD_WIDTH.into());
        }
    }

    fn operands(&mut self, value: Value) {
        let op = self.graph.op(value);
        // Steps of a decider are over f32.
        let decides = matches!(
            op,
            Op::Choose { .. }
                | Op::ChooseOrReplay { .. }
                | Op::LimitChoices { .. }
                | Op::LimitChoicesAfter { .. }
                | Op::ShareChoices { .. }
                | Op::RouterLogits {}
                | Op::RmsNorm { .. }
                | Op::LayerNorm { .. }
                | Op::InvRms { .. }
                | Op::SequenceMean {}
        );
        let takes_f32 = op.has(Trait::Pointwise)
            || decides
            || op.has(Trait::OpensScope)
            || op.has(Trait::UpdatesState)
            || op.has(Trait::Copies)
            || op.has(Trait::CountsRows);
        if let Op::Training(training) = op {
            self.training(value, *training);
            return;
        }
        let stores = matches!(op, Op::StoreRows {});
        for (idx, operand) in self.graph.operands(value).into_iter().enumerate() {
            let name = op.info().operands[idx];
            match self.graph.ty(operand).as_tensor() {
                Some((Elem::Mask, _)) if stores && matches!(self.graph.op(operand), Op::Executed {}) => {}
                Some((elem, _)) if elem == Elem::Mask || (elem == Elem::F32 && !takes_f32) => {
                    let place = self.place(value);
                    self.errors.push(LegalError::OperandElem { op: op.name(), operand: name, elem, place });
                }
                Some((Elem::Int, _)) => self.source(value, name, self.facts.source(operand)),
                _ => {}
            }
        }
    }

    /// Ops of training take what their types allow.
    fn training(&mut self, value: Value, training: Training) {
        // What every backend can compute of it, the planner says; this function has no formula there.
        if let Training::Derivative { of: Unary::GeluErf } = training {
            let (op, place) = (self.graph.op(value).name(), self.place(value));
            self.errors.push(LegalError::NoKernel { op, place });
        }
        for (idx, operand) in self.graph.operands(value).into_iter().enumerate() {
            if let Some((Elem::Int, _)) = self.graph.ty(operand).as_tensor() {
                let name = self.graph.op(value).info().operands[idx];
                self.source(value, name, self.facts.source(operand));
            }
        }
    }

    /// Whether it is a graph of training.
    fn trains(&self) -> bool {
        let is_trained = |value: &Value| matches!(self.graph.op(*value), Op::Training(_));
        self.facts.order().iter().any(is_trained)
    }

    /// Integers of this operand come from the input that its name in the op table means.
    fn source(&mut self, value: Value, operand: &'static str, got: Option<&Role>) {
        let (wanted, fits) = match operand {
            "ids" => ("tokens or positions", matches!(got, Some(Role::Tokens | Role::Positions))),
            "positions" | "all_positions" | "q_pos" | "k_pos" => ("positions", got == Some(&Role::Positions)),
            "sequences" if matches!(self.graph.op(value), Op::RouteRandom { .. }) => {
                ("sequences or requests", matches!(got, Some(Role::Sequences | Role::Requests)))
            }
            "sequences" | "all_sequences" | "q_seq" | "k_seq" => ("sequences", got == Some(&Role::Sequences)),
            "places" => ("places", got == Some(&Role::Places)),
            "pages" => ("pages", got == Some(&Role::Pages)),
            "pending" => ("pending", got == Some(&Role::Pending)),
            _ => return,
        };
        if !fits {
            let (op, place) = (self.graph.op(value).name(), self.place(value));
            self.errors.push(LegalError::Source { op, operand, wanted, place });
        }
    }

    /// The set of the rows whose logits are wanted, if that is not all.
    fn logit_rows(&self) -> Option<SetSym> {
        let mut inputs = self.facts.order().iter().map(|value| self.graph.op(*value));
        inputs.find_map(|op| {
            let Op::Input { port: Port { role: Role::LogitRows, ty: Type::Set { sym, .. } } } = op else {
                return None;
            };
            Some(*sym)
        })
    }

    /// Whether the host can get the value under a name: it lies in memory, or a kernel can put it there.
    fn can_be_given(&self, value: Value) -> bool {
        let op = self.graph.op(value);
        match self.graph.ty(value).as_tensor() {
            Some((Elem::Real | Elem::F32, _)) => !op.has(Trait::Constant),
            Some((Elem::Int, _)) => matches!(op, Op::Input { .. }),
            Some((Elem::Mask, _)) => matches!(op, Op::Input { .. } | Op::Executed {}),
            None => false,
        }
    }

    fn results(&mut self) {
        let (mut n_decisions, mut n_layers) = (0, 0);
        for (role, value) in self.graph.results() {
            let ty = self.graph.ty(value).as_tensor();
            let is_mask = ty == Some((Elem::Mask, &[Dim::Tokens]));
            let (fits, wanted) = match role {
                Role::Logits => {
                    let rows = match self.logit_rows() {
                        Some(set) => Dim::Count(set),
                        None => Dim::Tokens,
                    };
                    let fits = matches!(
                        ty,
                        Some((Elem::Real | Elem::F32, [got, Dim::Fixed(_)])) if *got == rows
                    );
                    (fits, "numbers [n, v], of the `logit_rows` alone if the graph has them")
                }
                Role::Decision { router } if *router == n_decisions => {
                    n_decisions += 1;
                    (is_mask, "mask[n]")
                }
                // The verifier has seen that they are states.
                Role::State { .. } | Role::PromptState { .. } => continue,
                Role::Wanted { router } if router + 1 == n_decisions => (is_mask, "mask[n]"),
                Role::WantedMask { router } if self.trains() && router + 1 == n_decisions => {
                    (is_mask, "mask[n]")
                }
                Role::Choices { layer, .. } if *layer == n_layers => {
                    n_layers += 1;
                    (matches!(ty, Some((Elem::F32, [Dim::Tokens, Dim::Fixed(_)]))), "f32[n, k]")
                }
                Role::Result { .. } => {
                    (self.can_be_given(value), "numbers of this step, an input, or `executed` of a set")
                }
                _ => {
                    self.errors.push(LegalError::ResultRole { role: role.clone(), next: n_decisions });
                    continue;
                }
            };
            if !fits {
                let place = self.place(value);
                self.errors.push(LegalError::ResultType { role: role.clone(), wanted, place });
            }
        }
        let has_named = self.graph.results().any(|(role, _)| matches!(role, Role::Result { .. }));
        if self.graph.result(&Role::Logits).is_none() && !has_named && !self.trains() {
            self.errors.push(LegalError::NoLogits);
        }
    }
}

//! The graph IR: what a model computes, before anyone decides how.
//!
//! # Values
//!
//! A [`Graph`] is a dataflow graph in SSA form. Every node has exactly one result, a [`Value`], which exists from the
//! moment its operands do and is never changed. There is no control flow: whether a token runs a layer is data.
//!
//! # Rows
//!
//! A tensor is `[rows, columns]` (or `[rows]`). Columns are always known. Rows are one [`Dim`]:
//!
//! * `n`, the tokens of the whole batch, all sequences one after the other. Each row has a position and a sequence
//!   index, which are ordinary integer inputs, so that a ragged batch is the same graph as one sequence.
//!   Rows are ordered by (sequence, position); `gather` keeps that order.
//! * `c3`, the executed tokens of token set 3. `route` makes the set and with it a fresh dimension, `0 ≤ c3 ≤ n`,
//!   whose size is known only while the program runs. Nothing relates it to the wanted density.
//! * a number, for weights.
//! * `m`, the rows of a cache. `pending` makes a set of some of them, those whose turn has come, in no order and as many as
//!   wait: `gather` takes them out of caches, and `store_rows` puts rows of the set back where they belong.
//!
//! `gather %x, %s` takes `[n, d]` to `[c, d]`; `scatter %base, %y, %s` writes the rows back over a copy of `base`.
//! Values of two sets cannot meet: their types differ, and [`Graph::add`] refuses the op.
//!
//! # Interface
//!
//! A graph is a function. What it takes from outside are nodes, `input` and `weight`, each with a [`Port`]: a [`Role`]
//! that says what it means, and a type. What it gives are values with roles. [`Graph::signature`] lists them.
//!
//! Inputs and results of a name have a row for each token, so many as their type says, or those of a set. A set may come
//! from outside, too: its rows ascend, each is there once, and an input over them has as many.
//!
//! # States
//!
//! What one step leaves for the next (caches, counters) is a [`Type::State`]: an input and a result of one name, which are
//! one place in memory. Values of it are linear: the op that updates one uses it up, so that there is never more than one
//! value of a state, and nothing has to be copied. Other ops may look at a value before it is used up. No pass moves
//! states: they are in no e-graph, and the verifier refuses a graph that loses or doubles one.
//!
//! # Numbers
//!
//! Elements are [`Elem::Real`] (the precision that the compile chooses per target: f32 or bf16), [`Elem::F32`]
//! (f32 whatever the target: all that decides about routing), [`Elem::Int`] and [`Elem::Mask`].
//! The reference interpreter ([`interp`]) evaluates a graph in one number domain throughout and is the oracle of
//! every later form of it.
//!
//! # Gradients
//!
//! [`gradient`] adds the backward pass of a number to a graph, before passes run. A gradient has the type of what it is the
//! gradient of. Decisions have none: [`Training::StraightThrough`] says what stands for it.
//!
//! # Reading order
//!
//! [`ops`] is the table of all ops, [`elementwise`] that of the functions among them, [`training`] that of the ops of training; `op/` holds their meaning, a file
//! per family; [`graph`], [`text`],
//! [`verify`](mod@verify) and [`legal`] (the gates), [`interp`].

pub mod attr;
pub mod codes;
pub mod draws;
pub mod elementwise;
pub mod gradient;
pub mod graph;
pub mod interp;
pub mod legal;
mod op;
pub mod ops;
pub mod port;
mod ranking;
pub mod rope;
mod rounding;
mod run;
pub mod scoring;
mod signature;
pub mod text;
pub mod training;
pub mod ty;
pub mod verify;

pub use attr::{F64, Name};
pub use elementwise::{Binary, Unary};
pub use graph::{Graph, Origin, Value};
pub use legal::{Legal, legalize};
pub use op::leaf::stacked_name;
pub use op::token_set::{hash_expert, random_score, top_k};
pub use op::{TypeError, infer};
pub use ops::{Op, Trait};
pub use port::{Port, Role};
pub use ranking::Ranking;
pub use rope::{Frequencies, RopeScaling};
pub use rounding::Rounding;
pub use run::{Domain, run};
pub use scoring::{MOST_AHEAD, Scoring};
pub use signature::Signature;
pub use training::Training;
pub use ty::{Dim, Elem, SetSym, Type};
pub use verify::{Facts, verify};

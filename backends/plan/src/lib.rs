//! From a legal graph to structured kernels, buffers and steps.
//!
//! # Kernels
//!
//! A [`kernel::Kernel`] is not a loop nest but a description that each backend knows how to generate well: a matmul
//! with a prologue that may gather rows and an epilogue program ([`kernel::Gemm`]), attention
//! ([`kernel::Attention`]), row-wise work ([`kernel::Rowwise`]), the making of a token set ([`kernel::Compact`]). What only
//! training needs is said in loops ([`loops::Loops`]), but for its matmuls.
//! Kernels know shapes, not places: they name their parameters by [`kernel::Slot`], and a step binds each to a buffer
//! or a constant. Layers of equal shape share their kernels.
//!
//! # Rows
//!
//! A kernel works on the logical rows `0 .. extent` of one dimension. A [`kernel::View`] says how a logical row
//! finds its physical row: itself, or by a row list, which is how `gather` and `scatter` cost nothing of their own.
//! Row lists are ascending and without repetition.
//!
//! # Numbers
//!
//! Elements are loaded from the parameter's type, all arithmetic is f32, and a store rounds to the parameter's type
//! (to nearest, ties to even).
//!
//! # Reading order
//!
//! [`kernel`] and [`pointwise`] are the vocabulary, [`plan`] is what [`build`] makes of a legal graph, [`link`](mod@link) puts the
//! functions of a program together, [`verify`](mod@verify) says
//! what a plan must keep, [`interp`] executes one tile by tile on the host, [`traffic`](mod@traffic) counts the bytes that it moves,
//! [`codegen`] is what a backend implements.

pub mod buckets;
mod build;
pub mod codegen;
pub mod error;
mod fuse;
pub mod interp;
pub mod kernel;
mod layout;
pub mod link;
pub mod loops;
mod loops_text;
mod lower;
mod op_kind;
mod order;
pub mod plan;
pub mod pointwise;
mod print;
mod real;
pub mod recipe;
mod residence;
pub mod stored;
pub mod traffic;
mod uses;
pub mod verify;

pub use build::{build, build_unfused};
pub use error::PlanError;
pub use link::{Linked, link};
pub use plan::{ConstantSource, Options, Plan, PlanConstant, StepSource};
pub use recipe::RecipeStep;
pub use traffic::traffic;
pub use verify::verify;

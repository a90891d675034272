//! The text form of a graph, `.sir`: printed by [`print`](fn@print), read back by [`parse`](fn@parse).
//!
//! ```text
//! graph "two layers" {
//!   %0 = input {port=tokens} : int[n]
//!   %1 = weight {name="embed.weight", shape=[256, 128]} : real[256, 128] @"embed"
//!   %2 = embed %1, %0 : real[n, 128] @"embed"
//!   return logits = %2
//! }
//! ```
//!
//! One node a line: its number, the op, operands, attributes, type, and after `@` its origin in the model. Operands
//! stand before their users. A text may leave out types, name values as it likes (`%x`), and have comments from `//` to
//! the end of the line. Numbers follow [`Graph::order`](crate::Graph::order), so equal graphs print equal texts, and
//! `print(parse(print(g))) == print(g)`.

mod error;
mod lex;
mod parse;
mod print;

pub use error::{ParseError, Problem, nearest};
pub use parse::{MAX_NODES, MAX_RESULTS, MAX_TEXT, parse};
pub use print::{NodeLocation, Numbering, print};

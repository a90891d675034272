#![doc = include_str!("ARCHITECTURE.md")]

pub mod bench;
pub mod cli;
pub mod codes;
pub mod cost;
pub mod diagnostic;
pub mod driver;
pub mod error;
pub mod frontend;
pub mod verify;

pub use error::{Error, ErrorKind};

#![doc = include_str!("ARCHITECTURE.md")]

pub mod backends;
pub mod cli;
pub mod codes;
pub mod constants;
pub mod diagnostic;
pub mod ladder;
pub mod lint;
pub mod lower;
pub mod memory;
pub mod pack;
pub mod pipeline;
pub mod reference;
pub mod rewrites;
pub mod spec;
pub mod trace;

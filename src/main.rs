//! The `skipc` command.
fn main() {}

//! Inputs that nobody wrote on purpose, for everything that reads a file or a request: none may end in a panic, take longer than a
//! second, or take memory beyond what its kind may.
//!
//! Inputs are mutations of real ones. Which are worth mutating again says what became of them: an input that is refused or
//! accepted in words that no other had is kept, so that errors behind the first are reached. Each target runs for two
//! seconds; `make campaign` runs all for longer and adds what it did to `tests/ledger/fuzz.json`:
//!
//! ```text
//! FUZZ_SECONDS=60 FUZZ_LEDGER=tests/ledger/fuzz.json cargo test --release --test fuzz
//! ```
//!
//! An input that breaks a promise is written to the folder for temporary files, and its name is in the message.
#![cfg(feature = "cranelift")]

mod count;
mod driver;
mod ledger;
mod mutations;
mod seeds;
mod server;
mod targets;

use driver::fuzz;

macro_rules! fuzzed {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name), &targets::$name());
        })*
    };
}

fuzzed! { specs overlays configurations weights graphs artefacts arrays traces tunings trainings ptx tokenizers templates requests }

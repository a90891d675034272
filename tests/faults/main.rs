//! Faults of the system: a disk that is full or breaks, memory that there is not, processes that are killed or write at once, and
//! odd environments. None may end in a wrong answer, a part of a file, a hang or a crash.
//!
//! Every test tries some points; with `FAULTS=all` each and every one, which `make campaign` does, and adds what it tried to
//! the file that `FAULTS_LEDGER` names:
//!
//! ```text
//! FAULTS=all FAULTS_LEDGER=tests/ledger/faults.json cargo test --release --test faults
//! ```
//!
//! Calls are made to fail by a library that is loaded into the command (`tests/faults/shim.c`).
#![cfg(all(feature = "cranelift", target_os = "linux", target_arch = "x86_64"))]

mod allocations;
mod commands;
mod each_call;
mod environment;
mod full_disk;
mod inputs;
mod kills;
mod ledger;
mod outputs;
mod shim;
mod together;

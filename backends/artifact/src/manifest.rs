//! Where an artefact comes from and what it promises.

use serde::{Deserialize, Serialize};

use crate::section::ContentHash;

/// Provenance: everything that decided the bytes of the artefact, and nothing else (no time, machine or path).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The model's name, from its spec.
    pub model: String,
    /// Version of the compiler.
    pub compiler: String,
    /// Version of LLVM, if it generated code in here.
    pub llvm: Option<String>,
    /// Version of ptxas, if it assembled cubins in here.
    pub ptxas: Option<String>,
    /// The options of the compile that decide its result, in a fixed order.
    pub flags: Vec<String>,
    /// Hash of the resolved spec's text.
    pub spec_hash: ContentHash,
    /// Hash of the weights file.
    pub weights_hash: ContentHash,
    /// Names of the targets there is code for.
    pub targets: Vec<String>,
    /// What holds for every program in here.
    pub promises: Promises,
}

/// What the compiler has checked of every program of an artefact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promises {
    /// No step waits for a number to travel from the device to the host.
    pub device_resident: bool,
    /// No decision or value of a token depends on later tokens, so the model can generate.
    pub causal: bool,
}

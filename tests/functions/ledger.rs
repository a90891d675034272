//! The ledger of a sweep.

use std::collections::BTreeMap;
use std::process::Command;

use serde::Serialize;

use skipc_ir::Unary;

use crate::oracle::{FUNCTIONS, Worst};
use crate::variant::Variant;

/// A sweep.
#[derive(Debug, Serialize)]
pub(crate) struct Ledger {
    /// What was checked.
    commit: String,
    /// How many numbers went through each function.
    numbers: u64,
    /// By function, by backend and level.
    functions: BTreeMap<&'static str, Found>,
    /// How long it took.
    seconds: u64,
}

#[derive(Debug, Serialize)]
struct Found {
    /// What its code keeps, in units in the last place.
    bound_ulps: f64,
    by_code: BTreeMap<String, Of>,
}

#[derive(Debug, Serialize)]
struct Of {
    worst_ulps: f64,
    at: f32,
    flushed_subnormals: u64,
    lost_nan: u64,
}

impl Ledger {
    /// The ledger of what was found for each variant and function.
    pub(crate) fn of(
        variants: &[Variant],
        worst: &[[Worst; FUNCTIONS.len()]],
        numbers: u64,
        seconds: u64,
    ) -> Ledger {
        let found = |(idx, function): (usize, &Unary)| {
            let of = |(variant, worst): (&Variant, &[Worst; FUNCTIONS.len()])| {
                let Worst { ulps, at, flushed, lost_nan } = worst.get(idx).copied().unwrap_or_default();
                let worst_ulps = (ulps * 1000.0).ceil() / 1000.0;
                (variant.name.clone(), Of { worst_ulps, at, flushed_subnormals: flushed, lost_nan })
            };
            let by_code = variants.iter().zip(worst).map(of).collect();
            (function.name(), Found { bound_ulps: function.info().ulps, by_code })
        };
        let functions = FUNCTIONS.iter().enumerate().map(found).collect();
        Ledger { commit: commit(), numbers, functions, seconds }
    }

    /// Whether all code keeps its bounds, and what is not a number stays so.
    pub(crate) fn is_clean(&self) -> bool {
        let keeps = |found: &Found| {
            found.by_code.values().all(|of| of.worst_ulps <= found.bound_ulps && of.lost_nan == 0)
        };
        self.functions.values().all(keeps)
    }

    /// As JSON.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

fn commit() -> String {
    let output = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

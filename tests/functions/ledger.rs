//! The ledger of a sweep.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use skipc_ir::Unary;

use crate::oracle::Worst;
use crate::variant::Variant;

/// Sweeps, by function.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ledger {
    functions: BTreeMap<String, Found>,
}

/// The last sweep of a function.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    /// What was checked.
    commit: String,
    /// How many numbers went through it.
    numbers: u64,
    /// How long that took, together with the other functions of the sweep.
    seconds: u64,
    /// What its code keeps, in units in the last place.
    bound_ulps: f64,
    by_code: BTreeMap<String, Of>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Of {
    worst_ulps: f64,
    at: f32,
    flushed_subnormals: u64,
    lost_nan: u64,
}

impl Ledger {
    /// The ledger of what was found for each variant and function.
    pub(crate) fn of(
        functions: &[Unary],
        variants: &[Variant],
        worst: &[Vec<Worst>],
        (numbers, seconds): (u64, u64),
    ) -> Ledger {
        let commit = commit();
        let found = |(idx, function): (usize, &Unary)| {
            let of = |(variant, worst): (&Variant, &Vec<Worst>)| {
                let Worst { ulps, at, flushed, lost_nan } = worst.get(idx).copied().unwrap_or_default();
                let worst_ulps = (ulps * 1000.0).ceil() / 1000.0;
                (variant.name.clone(), Of { worst_ulps, at, flushed_subnormals: flushed, lost_nan })
            };
            let by_code = variants.iter().zip(worst).map(of).collect();
            let (commit, bound_ulps) = (commit.clone(), function.info().ulps);
            (function.name().to_owned(), Found { commit, numbers, seconds, bound_ulps, by_code })
        };
        Ledger { functions: functions.iter().enumerate().map(found).collect() }
    }

    /// Writes it over what the file says of the same functions.
    pub(crate) fn write(self, path: &Path) -> std::io::Result<()> {
        let mut all = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice::<Ledger>(&bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ledger::default(),
            Err(error) => return Err(error),
        };
        all.functions.extend(self.functions);
        std::fs::write(path, all.text() + "\n")
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use skipc_ir::Unary;

    use super::Ledger;

    #[test]
    fn every_function_of_the_table_was_swept_over_all_numbers_and_kept_its_bound() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ledger/functions.json");
        let bytes = std::fs::read(path).expect("a ledger");
        let ledger: Ledger = serde_json::from_slice(&bytes).expect("rows of sweeps");
        let names: Vec<&str> = ledger.functions.keys().map(String::as_str).collect();
        let mut wanted: Vec<&str> = Unary::SAMPLES.iter().map(|function| function.name()).collect();
        wanted.sort_unstable();
        assert_eq!(names, wanted, "sweep what is missing, see tests/ledger/README.md");
        for function in Unary::SAMPLES {
            let row = &ledger.functions[function.name()];
            assert_eq!(row.numbers, 1 << 32, "{}", function.name());
            assert_eq!(row.bound_ulps, function.info().ulps, "{}: the bound was another", function.name());
            assert!(row.by_code.len() >= 2, "{}: one backend", function.name());
        }
        assert!(ledger.is_clean());
    }
}

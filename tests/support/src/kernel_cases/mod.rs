//! Kernel cases: one kernel, its operands, and what it should leave in them.
//!
//! Every backend runs all of them, and those for the CPU some more. They cover each kind of kernel at the extents where tiles begin and end, with
//! counts below the bound of the buffers, with sets of no, one, all, every other and a random quarter of the rows, at
//! sizes that fit vectors and sizes that do not. Rows past a count hold NaN in operands and must stay untouched in
//! results; so must all else that a kernel does not write.

mod along;
mod attention;
mod cached;
mod choice;
mod columns;
mod compact;
mod conv;
mod draft;
mod embed_rope;
mod epilogue;
mod gemm;
mod map;
mod norm;
mod panels;
mod parts;
mod ranked;
mod residual;
mod scores;
mod swizzled;
mod update;

use skipc_plan::kernel::Kernel;

use crate::exact;
use crate::tolerance::{Expected, Mismatch};

/// A kernel, its operands and what it should leave in them.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Unique; says kind, sizes, type and set.
    pub name: String,
    /// The kernel.
    pub kernel: Kernel,
    /// One for each parameter, as it is before the run.
    pub operands: Vec<Vec<u8>>,
    /// One for each parameter that the kernel writes.
    pub expected: Vec<Expected>,
}

/// What is wrong with the operands after a run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Wrong {
    /// An output has wrong elements.
    #[error("`{param}`{mismatch}")]
    Output {
        /// The parameter.
        param: String,
        /// The worst element.
        mismatch: Mismatch,
    },
    /// A parameter that is only read has other bytes than before.
    #[error("`{param}` is only read but has changed")]
    Changed {
        /// The parameter.
        param: String,
    },
}

impl Case {
    /// Upper bound of the rows that the kernel works on.
    pub fn max_rows(&self) -> u32 {
        self.kernel.extent.at_most(u32::MAX)
    }

    /// Whether there is one possible result, to the bit; see [`exact`].
    pub fn is_exact(&self) -> bool {
        exact::is_exact(&self.kernel, &self.operands)
    }

    /// Checks the operands after a run. Returns the largest share of its allowance that any element used.
    ///
    /// # Errors
    /// The first output that is wrong.
    pub fn check(&self, after: &[Vec<u8>]) -> Result<f64, Wrong> {
        let mut worst = 0.0_f64;
        for (idx, param) in self.kernel.params.iter().enumerate() {
            let (before, after) = (&self.operands[idx], &after[idx]);
            match self.expected.iter().find(|expected| expected.param as usize == idx) {
                Some(expected) => {
                    let used = expected.compare(before, after);
                    let wrong = |mismatch| Wrong::Output { param: param.name.clone(), mismatch };
                    worst = worst.max(used.map_err(wrong)?);
                }
                None if before != after => return Err(Wrong::Changed { param: param.name.clone() }),
                None => {}
            }
        }
        Ok(worst)
    }
}

/// All cases, in a fixed order, with the same bytes on every machine.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    gemm::add(&mut cases);
    epilogue::add(&mut cases);
    attention::add(&mut cases);
    cached::add(&mut cases);
    norm::add(&mut cases);
    scores::add(&mut cases);
    parts::add(&mut cases);
    embed_rope::add(&mut cases);
    map::add(&mut cases);
    compact::add(&mut cases);
    ranked::add(&mut cases);
    update::add(&mut cases);
    along::add(&mut cases);
    conv::add(&mut cases);
    residual::add(&mut cases);
    choice::add(&mut cases);
    cases
}

/// [`cases`], and behind them those of matmuls that only the CPU makes: weights in columns.
pub fn host_cases() -> Vec<Case> {
    let mut cases = cases();
    columns::add(&mut cases);
    panels::add(&mut cases);
    cases
}

/// [`cases`], and behind them large ones that take an interpreter too long to be run with each planted fault.
pub fn with_large() -> Vec<Case> {
    let mut cases = cases();
    residual::add_large(&mut cases);
    cases
}

/// [`with_large`], and behind them those of matmuls that only CUDA makes: swizzled weights.
pub fn cuda_cases() -> Vec<Case> {
    let mut cases = with_large();
    swizzled::add(&mut cases);
    cases
}

#[cfg(test)]
mod tests {
    use skipc_plan::interp::{Tiling, run_kernel};

    use super::*;
    use crate::tolerance::{Want, decode, round};

    #[test]
    fn names_are_unique_and_bytes_are_the_same_each_time() {
        let (first, second) = (cuda_cases(), cases());
        let mut names: Vec<&str> = first.iter().map(|case| case.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names.windows(2).find(|pair| pair[0] == pair[1]), None);
        assert!(first.len() > 500, "{} cases", first.len());
        for (first, second) in first.iter().zip(&second) {
            assert_eq!(first.operands, second.operands, "{}", first.name);
        }
    }

    /// An exact case's result is its value in f64, rounded once.
    #[test]
    fn exact_cases_have_one_result() {
        let mut kinds = std::collections::BTreeMap::<String, usize>::new();
        for case in cases().iter().filter(|case| case.is_exact()) {
            let mut operands = case.operands.clone();
            run_kernel(&case.kernel, &mut operands, Tiling::of(16)).expect("it runs");
            for output in &case.expected {
                let numbers = decode(output.dtype, &operands[output.param as usize]);
                for (idx, (want, got)) in output.wants.iter().zip(numbers).enumerate() {
                    if let Want::Value { value, .. } = *want {
                        let value = round(value, output.dtype);
                        assert_eq!(value.to_bits(), got.to_bits(), "{}, element {idx}: {got}", case.name);
                    }
                }
            }
            *kinds.entry(case.name.split('_').next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        for (kind, least) in [
            ("gemm", 90),
            ("epilogue", 24),
            ("scores", 10),
            ("parts", 2),
            ("embed", 20),
            ("map", 60),
            ("compact", 100),
        ] {
            let n = kinds.get(kind).copied().unwrap_or_default();
            assert!(n >= least, "{n} of {kind}: {kinds:?}");
        }
    }

    #[test]
    fn a_rounding_is_no_exact_operation() {
        let exact = |name: &str| cases().iter().find(|case| case.name == name).expect(name).is_exact();
        assert!(exact("gemm_f32_f32_64x64_rows_17_of_33_integers") && exact("map_f32_bf16_ties"));
        for name in ["gemm_f32_f32_64x64_rows_17_of_33_reals", "map_f32_one_minus", "map_bf16_gate_in_place"]
        {
            assert!(!exact(name), "{name}");
        }
    }

    #[test]
    fn untouched_operands_are_wrong_wherever_something_is_to_be_written() {
        for case in cases() {
            let writes = case.expected.iter().flat_map(|expected| &expected.wants);
            let writes = writes.filter(|want| **want != Want::Untouched).count();
            assert_eq!(case.check(&case.operands).is_err(), writes > 0, "{}", case.name);
        }
    }

    #[test]
    fn a_written_operand_is_seen() {
        let case = cases().into_iter().find(|case| case.name.starts_with("gemm")).expect("matmuls");
        let mut operands = case.operands.clone();
        run_kernel(&case.kernel, &mut operands, Tiling::of(16)).expect("it runs");
        case.check(&operands).expect("it is right");
        operands[0][0] ^= 1;
        assert!(matches!(case.check(&operands), Err(Wrong::Changed { .. })));
    }
}

//! Which tile a matmul takes and how its weights lie shows in no bit of its result, whatever the count: run on the PTX
//! machine.

#[path = "../../../tests/conformance/on_the_ptx_machine.rs"]
mod on_the_ptx_machine;

use std::sync::Arc;

use skipc_artifact::program::RowTile;
use skipc_llvm::CudaTarget;
use skipc_mlir::lower;
use skipc_plan::buckets::{Always, Bucket, Bucketing, Tile};
use skipc_plan::kernel::{Access, Kernel, Param};
use skipc_ptx::machine::Program;
use skipc_testkit::kernel_cases::{Case, cuda_cases};

/// Every form in turn, each from so many rows on.
struct Every(u32);

impl Bucketing for Every {
    fn buckets(&self, _: &Kernel, tiles: &[Tile], _: u32) -> Vec<Bucket> {
        (0..tiles.len()).rev().zip(0..).map(|(tile, turn)| Bucket { from: turn * self.0, tile }).collect()
    }
}

/// What a case leaves, and the tiles of its kernel.
fn run(case: &Case, bucketing: &dyn Bucketing) -> (Vec<Vec<u8>>, Vec<RowTile>) {
    let lowered = lower(CudaTarget::Sm80, &[("kernel".to_owned(), &case.kernel)], bucketing).expect("code");
    let program = Arc::new(Program::load(&lowered.ptx.text, "kernel").expect("PTX of the machine"));
    let loaded = (program, lowered.launches[0].clone());
    let left = on_the_ptx_machine::run(&loaded, &case.kernel, &case.operands, 0);
    (left.unwrap_or_else(|fault| panic!("{}: {fault}", case.name)), lowered.launches[0].tiles().to_vec())
}

/// The forms of a case's kernel agree in all bits; yields how many there are.
fn check(case: &Case) -> usize {
    let (highest, _) = run(case, &Always(usize::MAX));
    let mut n_forms = 0;
    // At each of these counts another form begins for some case.
    for from in [1, 32, 64, 65] {
        let (found, tiles) = run(case, &Every(from));
        assert!(found == highest, "{} with tiles {tiles:?}", case.name);
        n_forms = tiles.len().max(n_forms);
    }
    for form in 0..n_forms {
        let (found, tiles) = run(case, &Always(form));
        assert_eq!(tiles.len(), 1);
        assert!(found == highest, "{} with tiles {tiles:?}", case.name);
    }
    n_forms
}

fn check_named(names: &[&str], n_forms: usize) {
    let cases = cuda_cases();
    for name in names {
        let found: Vec<&Case> = cases.iter().filter(|case| case.name.contains(name)).collect();
        assert!(!found.is_empty(), "no case {name}");
        found.iter().for_each(|case| assert_eq!(check(case), n_forms, "{}", case.name));
    }
}

/// What a case leaves in the parameters that its kernel writes.
fn results(case: &Case) -> Vec<Vec<u8>> {
    let (left, _) = run(case, &Always(0));
    let written = |(param, _): &(&Param, Vec<u8>)| param.access != Access::Read;
    case.kernel.params.iter().zip(left).filter(written).map(|(_, bytes)| bytes).collect()
}

#[test]
fn swizzled_weights() {
    let cases = cuda_cases();
    for name in ["whole_residual_2x200x40", "of_130_reals"] {
        let swizzled = cases.iter().filter(|case| case.name.starts_with("swizzled_"));
        let mut found = 0;
        for case in swizzled.filter(|case| case.name.contains(name)) {
            let plain = cases.iter().find(|plain| case.name.strip_prefix("swizzled_") == Some(&plain.name));
            assert!(results(case) == results(plain.expect("the case in rows")), "{}", case.name);
            found += 1;
        }
        assert!(found > 0, "no case {name}");
    }
}

#[test]
fn small_matmuls() {
    check_named(&["whole_residual_2x200x40", "of_130_reals"], 2);
}

#[test]
fn large_matmuls() {
    check_named(&["f32_whole_residual_2x264x1032_rows_1_", "bf16_whole_residual_1x264x1032_rows_129_"], 3);
}

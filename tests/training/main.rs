//! Training against PyTorch in float64, on the cases of `tests/training`, and the forms of a gradient against each other.

mod call;
mod faults;
mod forms;
mod runs;
mod steps;

use std::path::Path;

use serde_json::Value;
use skipc::driver::backends::CpuBackend;
use skipc::driver::training::Host;
use skipc::frontend::training;
use skipc::train::engine::Build;
use skipc::train::interpreted;
use skipc::train::ranks::Alone;
use skipc_artifact::target::DType;
use skipc_ir::interp::Number;
use skipc_runtime::npy;

use runs::{Bounds, cases, compare, compiled_by, compiled_on, distance, record_on, tensors};

/// Runs a case and writes its record to `folder`.
fn record<N: Number>(
    case: &Path,
    folder: &Path,
    how: (bool, Build<'_, N>),
    change: impl FnOnce(&mut training::Config),
) {
    record_on(case, (folder, &Alone), how, change);
}

#[test]
fn runs_in_f32_are_those_of_the_reference() {
    for case in cases() {
        let folder = tempfile::tempdir().unwrap();
        record::<f32>(&case, folder.path(), (false, &interpreted), |_| ());
        compare(&case, folder.path(), &Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 });
    }
}

/// Runs a case by compiled code and writes its record to `folder`.
fn record_by(backend: CpuBackend, threads: usize, case: &Path, folder: &Path) {
    record::<f32>(case, folder, (false, &compiled_by(backend, threads)), |_| ());
}

/// Runs all cases by compiled code; those of these names on one thread, too, which has to give the same bytes.
fn runs_of(backend: CpuBackend, on_one_thread: impl Fn(&Path) -> bool) {
    for case in cases() {
        let [two, one] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        record_by(backend, 2, &case, two.path());
        compare(&case, two.path(), &Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 });
        if !on_one_thread(&case) {
            continue;
        }
        record_by(backend, 1, &case, one.path());
        for file in ["steps.json", "grads.safetensors", "after.safetensors"] {
            let [one, two] = [&one, &two].map(|folder| std::fs::read(folder.path().join(file)).unwrap());
            assert!(one == two, "{}: {file} depends on the number of threads", case.display());
        }
    }
}

#[test]
fn runs_by_cranelift_are_those_of_the_reference() {
    runs_of(CpuBackend::Cranelift, |_| true);
}

#[test]
fn runs_by_llvm_are_those_of_the_reference() {
    runs_of(CpuBackend::Llvm, |case| case.ends_with("sparse-micro"));
}

/// How far gradients in bf16 may be off: three times as far as those of PyTorch, or as its median of a case.
const BF16_SHARE: f64 = 3.0;

/// Rows in bf16 and weights, gradients of weights and moments in f32, under the decisions of the reference.
#[test]
fn gradients_in_bf16_are_as_near_to_the_reference_as_those_of_pytorch() {
    for case in cases() {
        let of = |folder: &Path| tensors(&folder.join("grads.safetensors"));
        let on = |threads| {
            let folder = tempfile::tempdir().unwrap();
            let host = Host { backend: CpuBackend::Llvm, dtype: DType::Bf16, threads, max_tokens: 1 << 10 };
            record::<f32>(&case, folder.path(), (true, &compiled_on(host)), |_| ());
            of(folder.path())
        };
        let (ours, theirs) = (on(2), of(&case));
        if case.ends_with("sparse-micro") {
            assert!(ours == on(1), "a gradient depends on the number of threads");
        }
        // A model without scores has no nearest decision, which Python writes as a word that JSON lacks.
        let text = std::fs::read_to_string(case.join("case.json")).unwrap().replace("Infinity", "null");
        let figures: Value = serde_json::from_str(&text).unwrap();
        let figures = figures["bf16_grads"].as_object().unwrap();
        let mut sorted: Vec<f64> = figures.values().filter_map(Value::as_f64).collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted[sorted.len() / 2];
        let mut largest = 0f64;
        for (tensor, theirs) in &theirs {
            let off = distance(&ours[tensor], theirs);
            let figure = figures.get(tensor).and_then(Value::as_f64).unwrap_or(0.0);
            assert!(
                off <= BF16_SHARE * figure.max(median),
                "{}: the gradient of {tensor} is off by {off:e}, that of PyTorch by {figure:e}",
                case.display()
            );
            largest = largest.max(off);
        }
        assert!(largest > 1e-4, "{}: nothing was rounded", case.display());
    }
}

#[test]
fn runs_in_f64_are_those_of_the_reference_to_the_rounding_of_its_files() {
    for case in cases() {
        let folder = tempfile::tempdir().unwrap();
        record::<f64>(&case, folder.path(), (false, &interpreted), |_| ());
        compare(&case, folder.path(), &Bounds { loss: 2e-8, gradient: 2e-7, change: 2e-4 });
    }
}

#[test]
fn replayed_decisions_are_those_of_the_record() {
    let case = cases().into_iter().find(|case| case.ends_with("sparse-micro")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // With other noise the routers would decide otherwise.
    record::<f32>(&case, folder.path(), (true, &interpreted), |config| config.train.seed = 99);
    let [ours, theirs] =
        [folder.path(), &case].map(|folder| npy::read_ints(&folder.join("gates.npy"), &[4]).unwrap());
    assert_eq!(ours, theirs);
}

#[test]
fn parts_of_a_batch_give_what_the_whole_gives() {
    for case in cases() {
        for rows in [1, 2] {
            let folder = tempfile::tempdir().unwrap();
            record::<f64>(&case, folder.path(), (false, &interpreted), |config| {
                config.train.microbatch = rows
            });
            compare(&case, folder.path(), &Bounds { loss: 2e-8, gradient: 2e-7, change: 2e-4 });
        }
    }
}

#[test]
fn parts_of_a_batch_by_compiled_code_give_what_the_whole_gives() {
    for case in cases() {
        let folder = tempfile::tempdir().unwrap();
        let build = compiled_by(CpuBackend::Cranelift, 1);
        record::<f32>(&case, folder.path(), (false, &build), |config| config.train.microbatch = 1);
        compare(&case, folder.path(), &Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 });
    }
}

#[test]
fn parts_of_a_batch_without_a_loss_of_the_rates_give_what_the_whole_gives() {
    for name in ["dense-ste", "sigmoid-active"] {
        let case = cases().into_iter().find(|case| case.ends_with(name)).unwrap();
        let [whole, parts] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        record::<f32>(&case, whole.path(), (false, &interpreted), |config| config.train.aux_weight = 0.0);
        let build = compiled_by(CpuBackend::Cranelift, 1);
        record::<f32>(&case, parts.path(), (false, &build), |config| {
            config.train.aux_weight = 0.0;
            config.train.microbatch = 1;
        });
        compare(whole.path(), parts.path(), &Bounds { loss: 2e-5, gradient: 2e-5, change: 1e-3 });
    }
}

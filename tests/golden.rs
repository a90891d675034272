//! Every golden case of the PyTorch reference, by every way that this build has to run a model.

use std::path::Path;

use skipc::lower::lower;
use skipc::spec::weights::Weights;
use skipc::{reference, spec};
use skipc_testkit::golden::{Case, cases};

/// Largest distance of a logit from the reference, in f32 (the reference itself is 2e-5 to 6e-5 from f64).
const TOLERANCE: f64 = 2e-4;

#[test]
fn the_interpreter_agrees_with_pytorch_in_f32_and_f64() {
    let cases = cases(Path::new("tests/golden"));
    assert!(cases.len() >= 20, "only {} golden cases found", cases.len());
    for case in &cases {
        let model = spec::load(&case.spec).unwrap_or_else(|found| panic!("{found}"));
        let weights = Weights::open(&case.weights, &model).unwrap_or_else(|found| panic!("{found}"));
        let graph = lower(&model).unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let double = reference::run::<f64>(&graph, &weights, &case.batch(), None).unwrap();
        case.check("interpreter, f64", &double.logits, &double.gates, TOLERANCE);
        if case.batch().tokens.len() <= 512 {
            let single = reference::run::<f32>(&graph, &weights, &case.batch(), None).unwrap();
            let logits: Vec<f64> = single.logits.iter().map(|logit| f64::from(*logit)).collect();
            case.check("interpreter, f32", &logits, &single.gates, TOLERANCE);
        }
        replay_gives_the_same(case, &graph, &weights, &double);
    }
}

/// Replaying the reference's own decisions changes nothing.
fn replay_gives_the_same(
    case: &Case,
    graph: &skipc_ir::Graph,
    weights: &Weights,
    free: &reference::Outcome<f64>,
) {
    if case.batch().tokens.len() > 128 {
        return;
    }
    let replayed = reference::run::<f64>(graph, weights, &case.batch(), Some(&case.gates)).unwrap();
    assert_eq!(&replayed, free, "{}: replayed decisions", case.name);
}

use std::time::Duration;

use skipc_plan::traffic::ByMemory;

use super::stepper::Stepped;
use super::{Far, StepRow, dense_sibling};
use crate::frontend::spec;

fn stepped(ms: u64, constants: u64, states: u64) -> Stepped {
    let bytes = ByMemory { constants, states, arena: 1_000_000 };
    Stepped { time: Duration::from_millis(ms), bytes, decided: 8, executed: 2 }
}

#[test]
fn a_dense_sibling_has_the_layers_and_no_decision() {
    for path in ["models/kjv-12l-d25.toml", "models/decoupled.toml", "models/random-gate.toml"] {
        let model = spec::load(path.as_ref()).unwrap();
        let dense = dense_sibling(&model);
        assert!(model.skips().next().is_some() && dense.skips().next().is_none(), "{path}");
        let layers = |model: &spec::model::Model| -> Vec<String> {
            let names = spec::tensors::tensors(model).into_iter().map(|tensor| tensor.name);
            names.filter(|name| !name.contains("router")).collect()
        };
        assert_eq!(layers(&model), layers(&dense), "{path}");
    }
}

#[test]
fn figures_are_those_of_the_rounds() {
    let own = [
        stepped(10, 90_000_000, 10_000_000),
        stepped(20, 90_000_000, 10_000_000),
        stepped(10, 90_000_000, 10_000_000),
    ];
    let dense = [
        stepped(40, 390_000_000, 10_000_000),
        stepped(60, 390_000_000, 10_000_000),
        stepped(20, 390_000_000, 10_000_000),
    ];
    // 100 MB in 10 ms are half of 20 GB/s.
    let row = StepRow::new(4, Some(0.25), (&own, &dense), 20e9);
    let close =
        |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-9 * wanted, "{found}, not {wanted}");
    close(row.executed, 0.25);
    close(row.ms_a_token, 2.5);
    close(row.tokens_per_second, 400.0);
    close(row.weight_bytes_a_token, 22_500_000.0);
    close(row.cache_bytes_a_token, 2_500_000.0);
    close(row.bandwidth_share, 0.5);
    // Of 4, 3 and 2.
    close(row.speed_over_dense, 3.0);
    close(row.bytes_under_dense, 4.0);
}

#[test]
fn far_steps_are_compared_in_their_rounds() {
    let near = [stepped(10, 100, 100), stepped(20, 100, 100), stepped(40, 100, 100)];
    let far = [stepped(15, 100, 400), stepped(30, 100, 400), stepped(80, 100, 400)];
    let found = Far::new(None, [64, 4096], [&near, &far]);
    assert_eq!((found.times_s, found.time_ratio, found.bytes_ratio), ([0.02, 0.03], 1.5, 2.5));
}

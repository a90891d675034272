//! A training run as SVG: its loss, and the rate of each router, over steps.

use serde_json::Value;

use crate::bench::plot::{Chart, Curve, draw};
use crate::error::Error;
use crate::frontend::spec::model::Model;

/// Points of a curve, at most: more cannot be told apart.
const POINTS: usize = 400;

/// Draws the lines of a log.
///
/// # Errors
/// If the plot cannot be drawn: a fault of skipc.
pub(super) fn svg(model: &Model, lines: &[Value]) -> Result<String, Error> {
    let of_steps = || lines.iter().filter(|line| line["loss"].is_number());
    let every = of_steps().count().div_ceil(POINTS).max(1);
    let curve = |name: String, value: &dyn Fn(&Value) -> Option<f64>| {
        let points =
            of_steps().step_by(every).filter_map(|line| Some((line["step"].as_f64()?, value(line)?)));
        Curve { name, points: points.collect(), band: Vec::new() }
    };
    let held_out =
        lines.iter().filter_map(|line| Some((line["step"].as_f64()?, line["eval"]["loss"].as_f64()?)));
    let held_out = Curve { name: "held out".to_owned(), points: held_out.collect(), band: Vec::new() };
    let losses = vec![
        curve("loss".to_owned(), &|line| line["loss"].as_f64()),
        curve("cross-entropy".to_owned(), &|line| line["ce"].as_f64()),
        held_out,
    ];
    let rates = model
        .skips()
        .enumerate()
        .map(|(router, _)| curve(format!("router {router}"), &|line| line["executed"][router].as_f64()));
    let name = &model.name;
    draw(&[
        Chart {
            title: format!("{name}: training"),
            subtitle: format!("{} steps", of_steps().count()),
            x: "step",
            y: "nats a token",
            curves: losses,
        },
        Chart {
            title: format!("{name}: executed share of each router"),
            subtitle: format!("{} steps", of_steps().count()),
            x: "step",
            y: "share of the tokens",
            curves: rates.collect(),
        },
    ])
}

//! The same model compiled in two ways, one slot of each in turns.

use serde::Serialize;
use skipc_runtime::Model as Artefact;

use super::Settings;
use super::report::{mean_bytes, speed, times};
use super::stepper::{Lane, Stepper};
use crate::error::Error;

/// A model in two forms.
pub struct Pair {
    /// What the first form has, in words of the command line.
    pub form: &'static str,
    /// What the second has in its place.
    pub over: &'static str,
    /// Both of them.
    pub artefacts: [Artefact; 2],
    /// Shares of the routers that a token executes; nothing for a model without routers.
    pub densities: Vec<Option<f64>>,
}

/// Steps of one slot in two forms.
#[derive(Clone, Debug, Serialize)]
pub struct Form {
    /// What the first form has, in words of the command line.
    pub form: &'static str,
    /// What the second has in its place.
    pub over: &'static str,
    /// Share of the routers that a token executes; nothing for the dense sibling.
    pub density: Option<f64>,
    /// Seconds of a step, medians.
    pub times_s: [f64; 2],
    /// Bytes of weights and caches of a step.
    pub bytes: [f64; 2],
    /// Time of the second form over that of the first in the same round, the median: above 1, the first is faster.
    pub speed: f64,
}

/// Times both forms at each density.
///
/// # Errors
/// As [`run`](super::run).
pub fn run(pair: &Pair, settings: &Settings) -> Result<Vec<Form>, Error> {
    let [first, second] = &pair.artefacts;
    let steppers = [Stepper::new(first, settings.threads)?, Stepper::new(second, settings.threads)?];
    let of_density = |density: &Option<f64>| {
        let mut stepped = [Vec::new(), Vec::new()];
        let mut lanes = Vec::new();
        for stepper in &steppers {
            let room = settings.behind + settings.rounds + 1;
            let mut lane = Lane::new(stepper, density.unwrap_or(1.0), 1, room)?;
            lane.prefill(settings.behind)?;
            lane.step()?;
            lanes.push(lane);
        }
        for _ in 0..settings.rounds {
            for (lane, stepped) in lanes.iter_mut().zip(&mut stepped) {
                stepped.push(lane.step()?);
            }
        }
        Ok(Form {
            form: pair.form,
            over: pair.over,
            density: *density,
            times_s: [0, 1].map(|idx: usize| times(&stepped[idx]).median_s),
            bytes: [0, 1].map(|idx: usize| mean_bytes(&stepped[idx])),
            speed: speed(&stepped[0], &stepped[1]),
        })
    };
    pair.densities.iter().map(of_density).collect()
}

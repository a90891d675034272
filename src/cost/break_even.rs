//! From which density on another form is cheaper.

use super::{Even, PlanCost};

/// Densities that are looked at before the crossing is narrowed down.
const STEPS: u32 = 100;

/// The lowest density from which on, up to 1, `other` takes no longer than `own`; `None` if it takes longer at 1.
pub fn break_even(own: &PlanCost, other: &PlanCost, tokens: f64) -> Option<f64> {
    let saves = |density: f64| {
        let counts = Even { tokens, density };
        own.time(&counts) - other.time(&counts)
    };
    if saves(1.0) < 0.0 {
        return None;
    }
    let density = |step: u32| f64::from(step) / f64::from(STEPS);
    let Some(below) = (0..STEPS).rev().find(|step| saves(density(*step)) < 0.0) else { return Some(0.0) };
    let (mut low, mut high) = (density(below), density(below + 1));
    for _ in 0..30 {
        let middle = 0.5 * (low + high);
        if saves(middle) < 0.0 { low = middle } else { high = middle }
    }
    Some(high)
}

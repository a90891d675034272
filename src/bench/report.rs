//! What a bench found, as it is printed, serialised and plotted.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::cost::Cost;
use crate::cost::{PlanCost, break_even};
use crate::driver::pipeline::Variant;

/// A whole bench. The field names are the interface of `skipc bench --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The model's name.
    pub model: String,
    /// What was given: the path of the artefact or the spec.
    pub source: String,
    /// Where the weights come from, in words.
    pub weights: String,
    /// Tokens of a step.
    pub tokens: u32,
    /// Lengths of its sequences.
    pub sequences: Vec<u32>,
    /// Routers that decide, each of which executes the density's share of the tokens.
    pub routers: usize,
    /// Threads of the host.
    pub threads: usize,
    /// The processor's name.
    pub processor: String,
    /// The kind of code.
    pub code: String,
    /// Times that each form was timed at each density.
    pub rounds: usize,
    /// Sets of inputs that took turns.
    pub input_sets: usize,
    /// Largest difference of logits that passes, relative to the largest logit.
    pub tolerance: f64,
    /// One for each density, in ascending order.
    pub points: Vec<Point>,
    /// From which density on the masked form is as fast as the fused one; none if one of them was not timed.
    pub break_even: Option<BreakEven>,
}

/// All forms at one density.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Share of the tokens that every router executes.
    pub density: f64,
    /// The largest difference between two forms' logits, relative to the largest logit.
    pub largest_difference: f64,
    /// The forms.
    pub forms: Vec<Timed>,
}

/// One form at one density.
#[derive(Clone, Debug, Serialize)]
pub struct Timed {
    /// Which.
    pub form: Variant,
    /// How long a step takes.
    #[serde(flatten)]
    pub times: Times,
    /// Its time over that of the fused form in the same round, the median of all rounds: above 1, the fused form is
    /// faster. None if that was not timed.
    pub over_fused: Option<f64>,
    /// Kernels and bytes of a step.
    #[serde(flatten)]
    pub cost: Cost,
}

/// Wall times of a step, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// The median.
    pub median_s: f64,
    /// The 10th percentile.
    pub p10_s: f64,
    /// The 90th percentile.
    pub p90_s: f64,
}

/// Where two forms are equally fast.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BreakEven {
    /// As measured.
    pub measured: Crossing,
    /// As the cost model predicts it, up to density 1.
    pub predicted: Option<Crossing>,
}

/// Where the time of the fused form reaches that of the masked one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Crossing {
    /// At this density, on the straight lines between neighbouring medians.
    At(f64),
    /// The fused form is faster at every density, up to this one.
    NoneUpTo(f64),
    /// The masked form is as fast already at this density, the lowest.
    Below(f64),
}

impl Crossing {
    /// What the cost model says of two forms' plans at so many tokens.
    pub fn predicted(fused: &PlanCost, masked: &PlanCost, tokens: f64) -> Crossing {
        match break_even(fused, masked, tokens) {
            Some(density) => Crossing::At(density),
            None => Crossing::NoneUpTo(1.0),
        }
    }
}

impl Times {
    /// Of the times of all rounds.
    pub fn of(times: &[Duration]) -> Times {
        let seconds = sorted(times.iter().map(Duration::as_secs_f64).collect());
        let at = |share| quantile(&seconds, share);
        Times { median_s: at(0.5), p10_s: at(0.1), p90_s: at(0.9) }
    }
}

pub(super) fn sorted(mut numbers: Vec<f64>) -> Vec<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers
}

/// The middle of ascending numbers.
pub(super) fn median(sorted: &[f64]) -> f64 {
    quantile(sorted, 0.5)
}

/// On the straight line between the two nearest of ascending numbers.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * sorted.len().saturating_sub(1) as f64;
    let number = |place: f64| sorted.get(place as usize).copied().unwrap_or_default();
    let (low, high) = (number(place.floor()), number(place.ceil()));
    low + (high - low) * place.fract()
}

impl Point {
    /// Of the times of all rounds of each form; relates the forms to the fused one.
    pub fn new(density: f64, largest_difference: f64, forms: Vec<(Variant, Vec<Duration>, Cost)>) -> Point {
        let fused =
            forms.iter().find(|(form, ..)| *form == Variant::Fused).map(|(_, times, _)| times.clone());
        let timed = |(form, times, cost): (Variant, Vec<Duration>, Cost)| {
            let over_fused = fused.as_ref().map(|fused| {
                let rounds = times.iter().zip(fused);
                median(&sorted(rounds.map(|(time, fused)| ratio(*time, *fused)).collect()))
            });
            Timed { form, times: Times::of(&times), over_fused, cost }
        };
        Point { density, largest_difference, forms: forms.into_iter().map(timed).collect() }
    }

    /// The median of a form, in seconds.
    pub fn median_s(&self, form: Variant) -> Option<f64> {
        self.forms.iter().find(|timed| timed.form == form).map(|timed| timed.times.median_s)
    }
}

fn ratio(time: Duration, other: Duration) -> f64 {
    // A clock may be too coarse for a tiny step; JSON has no infinity.
    time.as_secs_f64() / other.max(Duration::from_nanos(1)).as_secs_f64()
}

/// Where the lines of the fused and the masked form cross first, in points of ascending density; none if one of them is
/// missing.
pub fn crossing(points: &[Point]) -> Option<Crossing> {
    let mut before: Option<(f64, f64)> = None;
    for point in points {
        // By how much the fused form is slower.
        let slower = point.median_s(Variant::Fused)? - point.median_s(Variant::Masked)?;
        match before {
            None if slower >= 0.0 => return Some(Crossing::Below(point.density)),
            Some((density, was)) if slower >= 0.0 => {
                let share = was / (was - slower);
                return Some(Crossing::At(density + share * (point.density - density)));
            }
            _ => before = Some((point.density, slower)),
        }
    }
    before.map(|(density, _)| Crossing::NoneUpTo(density))
}

impl fmt::Display for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Crossing::At(density) => write!(f, "density {density:.2}"),
            Crossing::NoneUpTo(density) => write!(f, "none up to {density}"),
            Crossing::Below(density) => write!(f, "at {density} already, the lowest density"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(density: f64, fused: u64, masked: u64) -> Point {
        let of = |form, seconds| (form, vec![Duration::from_secs(seconds)], Cost::default());
        Point::new(density, 0.0, vec![of(Variant::Fused, fused), of(Variant::Masked, masked)])
    }

    fn without_fused() -> Point {
        Point::new(0.5, 0.0, vec![(Variant::Masked, vec![Duration::from_secs(1)], Cost::default())])
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let ms = |ms: &[u64]| {
            let times: Vec<Duration> = ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
            Times::of(&times)
        };
        let eleven = ms(&[10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(eleven, Times { median_s: 0.005, p10_s: 0.001, p90_s: 0.009 });
        assert!((ms(&[1, 2]).median_s - 0.0015).abs() < 1e-12);
        assert_eq!(ms(&[3]), Times { median_s: 0.003, p10_s: 0.003, p90_s: 0.003 });
        assert_eq!(ms(&[]), Times::default());
    }

    #[test]
    fn lines_cross_where_both_are_as_fast() {
        let rising = [point(0.25, 1, 4), point(0.5, 3, 4), point(1.0, 6, 4)];
        assert_eq!(crossing(&rising), Some(Crossing::At(0.5 + 0.5 / 3.0)));
        assert_eq!(crossing(&rising[..2]), Some(Crossing::NoneUpTo(0.5)));
        assert_eq!(crossing(&rising[2..]), Some(Crossing::Below(1.0)));
        assert_eq!(crossing(&[point(0.5, 3, 4), point(1.0, 4, 4)]), Some(Crossing::At(1.0)));
        assert_eq!((crossing(&[]), crossing(&[without_fused()])), (None, None));
        let words = [Crossing::At(0.6667), Crossing::NoneUpTo(1.0)].map(|crossing| crossing.to_string());
        assert_eq!(words, ["density 0.67", "none up to 1"]);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let ratios = |point: &Point| -> Vec<Option<f64>> {
            point.forms.iter().map(|timed| timed.over_fused).collect()
        };
        assert_eq!(ratios(&point(0.5, 2, 3)), [Some(1.0), Some(1.5)]);
        assert_eq!(ratios(&without_fused()), [None]);
        // The machine is slower in the last rounds, for both forms alike.
        let of = |form, seconds: [u64; 3]| (form, seconds.map(Duration::from_secs).to_vec(), Cost::default());
        let drifting = vec![of(Variant::Fused, [2, 2, 40]), of(Variant::Unfused, [4, 60, 80])];
        assert_eq!(ratios(&Point::new(0.5, 0.0, drifting)), [Some(1.0), Some(2.0)]);
    }
}

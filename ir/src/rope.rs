//! Frequencies of rotary positions (Su et al. 2021), and how longer contexts scale them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::attr::{Attr, F64, Literal};

/// By how much each pair of columns turns from position to position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frequencies {
    /// Base of the angles.
    pub theta: F64,
    /// What changes the frequencies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<RopeScaling>,
}

/// How a model that was trained on shorter sequences turns more slowly. All in f32, as the reference does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum RopeScaling {
    /// Every frequency over `factor`.
    Linear {
        /// By how much positions shrink.
        factor: F64,
    },
    /// As Llama 3.1: with the wavelength `λ = 2π / f`, frequencies whose `λ` is above `original / low` are divided by
    /// `factor`, those whose `λ` is below `original / high` stay, and between the two they are mixed.
    Llama3 {
        /// By how much the lowest frequencies shrink.
        factor: F64,
        /// Turns in the original context below which a frequency shrinks.
        low_freq_factor: F64,
        /// Turns in the original context above which a frequency stays.
        high_freq_factor: F64,
        /// Positions of the original context.
        original_max_positions: u32,
    },
}

impl Frequencies {
    /// The angle by which the pair `(pair, pair + half)` of a head turns at `position`, in radians.
    ///
    /// Frequency and angle are rounded to f32, as in the reference: at position 1000 the rounding of the angle is a
    /// visible part of the model (6e-5), so every form of a model has to round alike.
    pub fn angle(self, position: i64, pair: usize, half: usize) -> f32 {
        position as f32 * self.frequency(pair, half)
    }

    /// By how much this pair turns from position to position, in radians.
    pub fn frequency(self, pair: usize, half: usize) -> f32 {
        let frequency = libm::pow(self.theta.0, -(pair as f64) / half as f64) as f32;
        self.scaling.map_or(frequency, |scaling| scaling.of(frequency))
    }
}

impl RopeScaling {
    fn of(self, frequency: f32) -> f32 {
        match self {
            RopeScaling::Linear { factor } => frequency / factor.0 as f32,
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                let [factor, low, high] =
                    [factor, low_freq_factor, high_freq_factor].map(|factor| factor.0 as f32);
                let (original, length) = (original_max_positions as f32, std::f32::consts::TAU / frequency);
                if length > original / low {
                    frequency / factor
                } else if length < original / high {
                    frequency
                } else {
                    let share = (original / length - low) / (high - low);
                    (1.0 - share) * frequency / factor + share * frequency
                }
            }
        }
    }

    /// What is wrong with its numbers.
    pub fn fault(self) -> Option<&'static str> {
        let positive = |number: F64| number.0.is_finite() && number.0 as f32 > 0.0;
        match self {
            RopeScaling::Linear { factor } => (!positive(factor)).then_some("needs a positive `factor`"),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                if ![factor, low_freq_factor, high_freq_factor].into_iter().all(positive) {
                    Some("needs positive factors")
                } else if low_freq_factor >= high_freq_factor {
                    Some("needs a `low_freq_factor` below the `high_freq_factor`")
                } else if original_max_positions == 0 {
                    Some("needs positions of the original context")
                } else {
                    None
                }
            }
        }
    }
}

impl Attr for RopeScaling {
    const KIND: &'static str = "text";
    const OPTIONAL_KIND: &'static str = "text?";

    fn print(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RopeScaling::Linear { factor } => write!(f, "\"linear {:?}\"", factor.0),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                write!(
                    f,
                    "\"llama3 {:?} {:?} {:?} {original_max_positions}\"",
                    factor.0, low_freq_factor.0, high_freq_factor.0
                )
            }
        }
    }

    fn read(literal: &Literal) -> Option<RopeScaling> {
        let Literal::Text(text) = literal else { return None };
        let real = |text: &str| text.parse::<f64>().ok().map(F64::from);
        match text.split(' ').collect::<Vec<_>>()[..] {
            ["linear", factor] => Some(RopeScaling::Linear { factor: real(factor)? }),
            ["llama3", factor, low, high, original] => Some(RopeScaling::Llama3 {
                factor: real(factor)?,
                low_freq_factor: real(low)?,
                high_freq_factor: real(high)?,
                original_max_positions: original.parse().ok()?,
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA3: RopeScaling = RopeScaling::Llama3 {
        factor: ordered_float::OrderedFloat(8.0),
        low_freq_factor: ordered_float::OrderedFloat(1.0),
        high_freq_factor: ordered_float::OrderedFloat(4.0),
        original_max_positions: 8192,
    };

    fn frequencies(scaling: Option<RopeScaling>) -> Vec<f32> {
        let of = Frequencies { theta: F64::from(500_000.0), scaling };
        (0..64).map(|pair| of.frequency(pair, 64)).collect()
    }

    #[test]
    fn fast_frequencies_stay_and_slow_ones_shrink() {
        let (plain, scaled) = (frequencies(None), frequencies(Some(LLAMA3)));
        assert_eq!(plain[..20], scaled[..20]);
        assert_eq!(plain[63] / 8.0, scaled[63]);
        assert!(plain.iter().zip(&scaled).all(|(plain, scaled)| scaled <= plain && *scaled >= plain / 8.0));
        // Some lie between the two, and they fall as the others do.
        assert!(plain.iter().zip(&scaled).any(|(plain, scaled)| scaled < plain && *scaled > plain / 8.0));
        assert!(scaled.is_sorted_by(|a, b| a > b));
        let linear = frequencies(Some(RopeScaling::Linear { factor: F64::from(4.0) }));
        assert!(plain.iter().zip(linear).all(|(plain, linear)| linear == plain / 4.0));
    }

    #[test]
    fn text_reads_back() {
        let linear = RopeScaling::Linear { factor: F64::from(2.5) };
        for scaling in [LLAMA3, linear] {
            struct Shown(RopeScaling);
            impl fmt::Display for Shown {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.print(f)
                }
            }
            let text = Shown(scaling).to_string();
            assert_eq!(RopeScaling::read(&Literal::Text(text.trim_matches('"').to_owned())), Some(scaling));
        }
        assert_eq!(RopeScaling::read(&Literal::Text("yarn 2.0".to_owned())), None);
    }

    #[test]
    fn numbers_without_a_meaning_are_told() {
        assert_eq!(LLAMA3.fault(), None);
        let zero = RopeScaling::Linear { factor: F64::from(0.0) };
        assert!(zero.fault().is_some());
        let RopeScaling::Llama3 { factor, low_freq_factor, original_max_positions, .. } = LLAMA3 else {
            unreachable!()
        };
        let equal = RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor: low_freq_factor,
            original_max_positions,
        };
        assert!(equal.fault().is_some());
    }
}

//! Random numbers of training: functions of a seed and a key, so that no generator has a state. Recomputing, resuming,
//! another order of execution and another split into parts give the same numbers.
//!
//! The mixing function is that of SplitMix64 (Steele, Lea and Flood 2014); streams are told apart by the FNV-1a hash of
//! their names.

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output of SplitMix64 at state `x`.
#[must_use]
pub fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Word `k` of the stream `name` of a seed.
#[must_use]
pub fn word(seed: u64, name: &str, k: u64) -> u64 {
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    });
    mix((mix(seed) ^ hash).wrapping_add(k.wrapping_mul(GOLDEN)))
}

/// What draws of a router depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawKey {
    /// Step of the training, from 0.
    pub step: u64,
    /// Router, in model order.
    pub router: u32,
    /// Row in the batch of the whole step.
    pub row: u64,
    /// Position in the row.
    pub position: u64,
    /// 0 for the column that skips, 1 for the one that executes.
    pub column: u64,
}

/// The word drawn for a key.
#[must_use]
pub fn draw(seed: u64, key: DrawKey) -> u64 {
    let DrawKey { step, router, row, position, column } = key;
    let at =
        (u64::from(router) << 48).wrapping_add(row << 32).wrapping_add(position << 1).wrapping_add(column);
    mix(word(seed, "noise", step).wrapping_add(at))
}

/// 23 bits of a word as the middle of their interval in (0, 1): exact in f32.
#[must_use]
pub fn uniform(word: u64) -> f64 {
    (2 * (word >> 41) + 1) as f64 / f64::from(1u32 << 24)
}

/// The Gumbel noise drawn for a key: `−ln(−ln u)`.
#[must_use]
pub fn gumbel(seed: u64, key: DrawKey) -> f64 {
    -libm::log(-libm::log(uniform(draw(seed, key))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_those_of_the_definition() {
        let key = |column| DrawKey { step: 2, router: 1, row: 3, position: 5, column };
        assert_eq!(draw(7, key(0)), 0x1F94_456D_AA00_5E44);
        assert_eq!(draw(7, key(1)), 0xF068_B8A0_68EA_A1C3);
        assert!((uniform(draw(7, key(0))) - 0.123_356_16).abs() < 1e-8);
        assert!((gumbel(7, key(0)) + 0.738_445_3).abs() < 1e-7);
        assert!((gumbel(7, key(1)) - 2.767_235_1).abs() < 1e-6);
        assert_eq!(word(7, "embed.weight", 0), 0x0B7A_F6F8_5AB1_7C7C);
        assert_eq!(word(7, "embed.weight", 1), 0x7410_BDE3_2358_8E92);
    }

    #[test]
    fn uniform_numbers_never_reach_the_borders() {
        assert!(uniform(0) > 0.0 && uniform(u64::MAX) < 1.0);
        assert_eq!(f64::from(uniform(u64::MAX) as f32), uniform(u64::MAX));
    }
}

//! Tags: what exact domains have in place of functions that they lack.
//!
//! A tag is a number drawn from a function and its argument. Equal arguments have equal tags; nothing else about them
//! is promised, so that a form of a model that takes the function of another argument shows.

/// What is drawn from.
#[derive(Clone, Copy)]
pub(super) enum Function {
    Constant = 1,
    Exp,
    Tanh,
    Rsqrt,
    Recip,
    Erfc,
}

/// The tag of a function at the representative of its argument.
#[inline]
pub(super) fn tag(function: Function, argument: u64) -> u64 {
    mix(mix(argument).wrapping_add(function as u64))
}

/// SplitMix64's output function (Steele et al. 2014): a permutation of 64-bit words.
#[inline]
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// How a constant enters an exact domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    /// A small integer is itself.
    Integer(i64),
    /// Any other number is drawn from its absolute value; a negative one is the negative of its opposite.
    Opaque { drawn: u64, negative: bool },
}

impl Constant {
    /// Integers below this are themselves: they differ in every exact domain.
    const SMALL: f64 = (1u64 << 31) as f64;

    #[inline]
    pub(super) fn of(value: f64) -> Constant {
        if value.abs() < Constant::SMALL && value == value.trunc() {
            return Constant::Integer(value as i64);
        }
        Constant::Opaque {
            drawn: tag(Function::Constant, value.abs().to_bits()),
            negative: value.is_sign_negative(),
        }
    }
}

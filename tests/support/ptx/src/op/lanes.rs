//! Instructions that do the same in every lane: a function of one lane's values becomes a function of the
//! warp's registers.
//!
//! All 32 lanes are computed, whichever execute, so that the loops have no branches and become vector code;
//! only the lanes of the mask are written. A lane function must therefore be total: it meets what lies in
//! idle lanes.

use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::registers::{Mask, RegisterFault, Registers, Source32, Source64, SourcePredicate, Unset, WARP};
use crate::syntax::{Instruction, Operand, RegisterClass};

/// A row of a table.
pub(super) const fn form(
    section: &'static str,
    kind: Kind,
    syntax: &'static str,
    decode: fn(&mut Decoder<'_>, &Instruction) -> Result<Run, DecodeError>,
) -> Form {
    Form { syntax, section, kind, decode }
}

/// A value that a lane holds in a register of its width.
pub(super) trait Lane: Copy + Send + Sync + 'static {
    /// Where values come from.
    type Source: Copy + Send + Sync + 'static;

    /// Any value.
    const ZERO: Self;

    /// An operand of this type.
    fn source(d: &mut Decoder<'_>, operand: &Operand) -> Result<Self::Source, DecodeError>;

    /// A register for results of this type.
    fn result(d: &Decoder<'_>, operand: &Operand) -> Result<u32, DecodeError>;

    /// Values of all lanes.
    fn get(registers: &Registers, source: Self::Source, mask: Mask) -> Result<[Self; WARP], Unset>;

    /// Writes the lanes of `mask`.
    fn set(registers: &mut Registers, slot: u32, mask: Mask, values: &[Self; WARP]);
}

/// What a lane type accepts as constant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Constants {
    /// Whatever has bits.
    Bits,
    /// Only floating point constants, as PTX demands of floating point types.
    Float,
}

fn source32(
    d: &mut Decoder<'_>,
    operand: &Operand,
    class: RegisterClass,
    constants: Constants,
) -> Result<Source32, DecodeError> {
    d.expect_class(operand, class)?;
    match operand {
        Operand::Float32(_) if class == RegisterClass::B16 => Err(d.error("an f32 constant has 32 bits")),
        Operand::Integer(_) | Operand::Symbol(_) | Operand::Special(_) if constants == Constants::Float => {
            Err(d.error(format!("{operand:?} is not a floating point value")))
        }
        _ => d.source32(operand),
    }
}

fn source64(d: &mut Decoder<'_>, operand: &Operand, constants: Constants) -> Result<Source64, DecodeError> {
    match operand {
        Operand::Integer(_) | Operand::Symbol(_) | Operand::Special(_) if constants == Constants::Float => {
            Err(d.error(format!("{operand:?} is not a floating point value")))
        }
        _ => d.source64(operand),
    }
}

/// Types that lie in words, with conversions from and to the 32 bits there.
macro_rules! words {
    ($($ty:ty, $class:ident, $constants:ident, $from:expr, $to:expr;)*) => {$(
        impl Lane for $ty {
            type Source = Source32;
            const ZERO: Self = 0 as $ty;

            fn source(d: &mut Decoder<'_>, operand: &Operand) -> Result<Source32, DecodeError> {
                source32(d, operand, RegisterClass::$class, Constants::$constants)
            }

            fn result(d: &Decoder<'_>, operand: &Operand) -> Result<u32, DecodeError> {
                d.expect_class(operand, RegisterClass::$class)?;
                d.to32(operand)
            }

            #[inline]
            fn get(registers: &Registers, source: Source32, mask: Mask) -> Result<[Self; WARP], Unset> {
                let words = registers.get32(source, mask)?;
                Ok(each(|lane| $from(words[lane])))
            }

            #[inline]
            fn set(registers: &mut Registers, slot: u32, mask: Mask, values: &[Self; WARP]) {
                registers.set32(slot, mask, &each(|lane| $to(values[lane])));
            }
        }
    )*};
}

words! {
    u16, B16, Bits, |word: u32| word as u16, |value: u16| u32::from(value);
    i16, B16, Bits, |word: u32| word as i16, |value: i16| u32::from(value as u16);
    u32, B32, Bits, |word: u32| word, |value: u32| value;
    i32, B32, Bits, |word: u32| word as i32, |value: i32| value as u32;
    f32, B32, Float, f32::from_bits, f32::to_bits;
}

/// Types that lie in doubles.
macro_rules! doubles {
    ($($ty:ty, $constants:ident, $from:expr, $to:expr;)*) => {$(
        impl Lane for $ty {
            type Source = Source64;
            const ZERO: Self = 0 as $ty;

            fn source(d: &mut Decoder<'_>, operand: &Operand) -> Result<Source64, DecodeError> {
                source64(d, operand, Constants::$constants)
            }

            fn result(d: &Decoder<'_>, operand: &Operand) -> Result<u32, DecodeError> {
                d.to64(operand)
            }

            #[inline]
            fn get(registers: &Registers, source: Source64, mask: Mask) -> Result<[Self; WARP], Unset> {
                let doubles = registers.get64(source, mask)?;
                Ok(each(|lane| $from(doubles[lane])))
            }

            #[inline]
            fn set(registers: &mut Registers, slot: u32, mask: Mask, values: &[Self; WARP]) {
                registers.set64(slot, mask, &each(|lane| $to(values[lane])));
            }
        }
    )*};
}

doubles! {
    u64, Bits, |double: u64| double, |value: u64| value;
    i64, Bits, |double: u64| double as i64, |value: i64| value as u64;
    f64, Float, f64::from_bits, f64::to_bits;
}

/// The value of each lane.
#[inline(always)]
pub(super) fn each<T: Lane>(f: impl Fn(usize) -> T) -> [T; WARP] {
    let mut values = [T::ZERO; WARP];
    for (lane, value) in values.iter_mut().enumerate() {
        *value = f(lane);
    }
    values
}

/// The bit of each lane.
#[inline(always)]
pub(super) fn each_bit(f: impl Fn(usize) -> bool) -> Mask {
    (0..WARP).fold(0, |bits, lane| bits | (u32::from(f(lane)) << lane))
}

/// An instruction of registers alone.
pub(super) fn run(
    f: impl Fn(&mut Registers, Mask) -> Result<(), RegisterFault> + Send + Sync + 'static,
) -> Run {
    Run::Registers(Box::new(f))
}

/// Whether the instruction's name has a modifier.
pub(super) fn has(i: &Instruction, modifier: &str) -> bool {
    i.opcode.split('.').any(|part| part == modifier)
}

/// `op d, a`
pub(super) fn unary<A: Lane, R: Lane>(
    d: &mut Decoder<'_>,
    i: &Instruction,
    f: impl Fn(A) -> R + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    d.expect_operands(i, 2)?;
    let (to, a) = (R::result(d, &i.operands[0])?, A::source(d, &i.operands[1])?);
    Ok(run(move |registers, mask| {
        let a = A::get(registers, a, mask)?;
        R::set(registers, to, mask, &each(|lane| f(a[lane])));
        Ok(())
    }))
}

/// `op d, a, b`
pub(super) fn binary<A: Lane, B: Lane, R: Lane>(
    d: &mut Decoder<'_>,
    i: &Instruction,
    f: impl Fn(A, B) -> R + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    d.expect_operands(i, 3)?;
    let to = R::result(d, &i.operands[0])?;
    let (a, b) = (A::source(d, &i.operands[1])?, B::source(d, &i.operands[2])?);
    Ok(run(move |registers, mask| {
        let (a, b) = (A::get(registers, a, mask)?, B::get(registers, b, mask)?);
        R::set(registers, to, mask, &each(|lane| f(a[lane], b[lane])));
        Ok(())
    }))
}

/// `op d, a, b, c`
pub(super) fn ternary<A: Lane, B: Lane, C: Lane, R: Lane>(
    d: &mut Decoder<'_>,
    i: &Instruction,
    f: impl Fn(A, B, C) -> R + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    d.expect_operands(i, 4)?;
    let to = R::result(d, &i.operands[0])?;
    let (a, b) = (A::source(d, &i.operands[1])?, B::source(d, &i.operands[2])?);
    let c = C::source(d, &i.operands[3])?;
    Ok(run(move |registers, mask| {
        let (a, b) = (A::get(registers, a, mask)?, B::get(registers, b, mask)?);
        let c = C::get(registers, c, mask)?;
        R::set(registers, to, mask, &each(|lane| f(a[lane], b[lane], c[lane])));
        Ok(())
    }))
}

/// `op d, a, b, c, e`, as `bfi` has it.
pub(super) fn quaternary<A: Lane, B: Lane, C: Lane, E: Lane, R: Lane>(
    d: &mut Decoder<'_>,
    i: &Instruction,
    f: impl Fn(A, B, C, E) -> R + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    d.expect_operands(i, 5)?;
    let to = R::result(d, &i.operands[0])?;
    let (a, b) = (A::source(d, &i.operands[1])?, B::source(d, &i.operands[2])?);
    let (c, e) = (C::source(d, &i.operands[3])?, E::source(d, &i.operands[4])?);
    Ok(run(move |registers, mask| {
        let (a, b) = (A::get(registers, a, mask)?, B::get(registers, b, mask)?);
        let (c, e) = (C::get(registers, c, mask)?, E::get(registers, e, mask)?);
        R::set(registers, to, mask, &each(|lane| f(a[lane], b[lane], c[lane], e[lane])));
        Ok(())
    }))
}

/// A predicate operand where PTX does not allow `!p`.
pub(super) fn plain_predicate(d: &Decoder<'_>, operand: &Operand) -> Result<SourcePredicate, DecodeError> {
    match operand {
        Operand::Not(_) => Err(d.error("a negated predicate is not allowed here")),
        other => d.source_predicate(other),
    }
}

//! Conversions (PTX ISA section 9.7.9.21).
//!
//! The register of an integer operand of `cvt` may be wider than the type: as source its low bits count, as
//! result it is filled with the value's sign or with zeros.

use crate::isa::arithmetic::{Modifiers, flush, saturate};
use crate::isa::round::{self, Integer, Rounding, Whole, canonical64};
use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::op::float::modified1;
use crate::op::lanes::{self, Lane, binary, each, has, run, unary};
use crate::registers::{Mask, Registers, Source32, Source64, Unset, WARP};
use crate::syntax::{Instruction, Operand, RegisterClass};

const fn form(syntax: &'static str, decode: super::Decode) -> Form {
    lanes::form("9.7.9.21", Kind::Integer, syntax, decode)
}

const fn float(syntax: &'static str, decode: super::Decode) -> Form {
    lanes::form("9.7.9.21", Kind::Float, syntax, decode)
}

/// The family's forms.
pub(super) const FORMS: &[Form] = &[
    form("cvt.{u8,u16,u32,u64,s8,s16,s32,s64}.{u8,u16,u32,u64,s8,s16,s32,s64}", integer_to_integer),
    float("cvt.{rni,rzi,rmi,rpi}.{ftz,}.{sat,}.{u8,u16,u32,u64,s8,s16,s32,s64}.f32", |d, i| {
        let ftz = has(i, "ftz");
        float_to_integer(d, i, move |a: f32, whole, to| {
            round::f32_to_integer(if ftz { flush(a) } else { a }, whole, to)
        })
    }),
    float("cvt.{rni,rzi,rmi,rpi}.{sat,}.{u8,u16,u32,u64,s8,s16,s32,s64}.f64", |d, i| {
        float_to_integer(d, i, round::f64_to_integer)
    }),
    float("cvt.{rni,rzi,rmi,rpi}.{sat,}.{u8,u16,u32,u64,s8,s16,s32,s64}.f16", |d, i| {
        float_to_integer(d, i, |a: u16, whole, to| round::f32_to_integer(round::f16_to_f32(a), whole, to))
    }),
    float("cvt.{rn,rz}.f32.{u8,u16,u32,u64,s8,s16,s32,s64}", |d, i| {
        integer_to_float(d, i, round::integer_to_f32)
    }),
    float("cvt.{rn,rz}.f64.{u8,u16,u32,u64,s8,s16,s32,s64}", |d, i| {
        integer_to_float(d, i, round::integer_to_f64)
    }),
    float("cvt.{rn,rz}.{ftz,}.{sat,}.f32.f64", |d, i| {
        let (rounding, ftz, sat) = (rounding(i), has(i, "ftz"), has(i, "sat"));
        unary(d, i, move |a: f64| {
            let value = round::f64_to_f32(a, rounding);
            let value = if ftz { flush(value) } else { value };
            if sat { saturate(value) } else { value }
        })
    }),
    float("cvt.{ftz,}.f64.f32", |d, i| {
        let ftz = has(i, "ftz");
        unary(d, i, move |a: f32| canonical64(f64::from(if ftz { flush(a) } else { a })))
    }),
    float("cvt.{rni,rzi,rmi,rpi}.{ftz,}.{sat,}.f32.f32", |d, i| {
        let whole = whole(i);
        modified1(d, i, move |a, m: Modifiers| m.apply([a], |[a]| round::f32_to_whole(a, whole)))
    }),
    float("cvt.{rni,rzi,rmi,rpi}.f64.f64", |d, i| {
        let whole = whole(i);
        unary(d, i, move |a| round::f64_to_whole(a, whole))
    }),
    float("cvt.{ftz,}.sat.f32.f32", |d, i| modified1(d, i, |a, m: Modifiers| m.apply([a], |[a]| a))),
    float("cvt.{ftz,}.f32.f16", |d, i| unary(d, i, round::f16_to_f32)),
    float("cvt.f32.bf16", |d, i| unary(d, i, round::bf16_to_f32)),
    float("cvt.{rn,rz}.{ftz,}.f16.f32", |d, i| single(d, i, round::f32_to_f16)),
    float("cvt.{rn,rz}.relu.f16.f32", |d, i| single(d, i, round::f32_to_f16)),
    float("cvt.{rn,rz}.{relu,}.bf16.f32", |d, i| single(d, i, round::f32_to_bf16)),
    float("cvt.{rn,rz}.{relu,}.f16x2.f32", |d, i| pair(d, i, round::f32_to_f16)),
    float("cvt.{rn,rz}.{relu,}.bf16x2.f32", |d, i| pair(d, i, round::f32_to_bf16)),
    float("cvt.rna.tf32.f32", |d, i| unary(d, i, round::f32_to_tf32)),
];

/// `.rn` or `.rz`.
fn rounding(i: &Instruction) -> Rounding {
    if has(i, "rz") { Rounding::Zero } else { Rounding::NearestEven }
}

/// `.rni`, `.rzi`, `.rmi` or `.rpi`.
fn whole(i: &Instruction) -> Whole {
    match i.opcode.split('.').nth(1) {
        Some("rzi") => Whole::Zero,
        Some("rmi") => Whole::Down,
        Some("rpi") => Whole::Up,
        _ => Whole::NearestEven,
    }
}

/// A conversion of f32 to 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Narrow {
    rounding: Rounding,
    ftz: bool,
    /// A negative result becomes +0.
    relu: bool,
}

impl Narrow {
    /// What kernels run most.
    const PLAIN: Self = Self { rounding: Rounding::NearestEven, ftz: false, relu: false };

    fn of(i: &Instruction) -> Self {
        Self { rounding: rounding(i), ftz: has(i, "ftz"), relu: has(i, "relu") }
    }

    #[inline(always)]
    fn apply(self, value: f32, convert: impl Fn(f32, Rounding) -> u16) -> u16 {
        let value = if self.ftz { flush(value) } else { value };
        if self.relu && value <= 0.0 { 0 } else { convert(value, self.rounding) }
    }
}

/// `cvt.….f32 d, a`
fn single(
    d: &mut Decoder<'_>,
    i: &Instruction,
    convert: impl Fn(f32, Rounding) -> u16 + Copy + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    match Narrow::of(i) {
        Narrow::PLAIN => unary(d, i, move |a| Narrow::PLAIN.apply(a, convert)),
        narrow => unary(d, i, move |a| narrow.apply(a, convert)),
    }
}

/// `cvt.….x2.f32 d, a, b`: `a` becomes the high half.
fn pair(
    d: &mut Decoder<'_>,
    i: &Instruction,
    convert: impl Fn(f32, Rounding) -> u16 + Copy + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    let both = move |narrow: Narrow, a, b| {
        u32::from(narrow.apply(a, convert)) << 16 | u32::from(narrow.apply(b, convert))
    };
    match Narrow::of(i) {
        Narrow::PLAIN => binary(d, i, move |a, b| both(Narrow::PLAIN, a, b)),
        narrow => binary(d, i, move |a, b| both(narrow, a, b)),
    }
}

/// The integer type that is the `at`-th modifier from the end: 0 is the source's, 1 the result's.
fn integer(d: &Decoder<'_>, i: &Instruction, at: usize) -> Result<Integer, DecodeError> {
    let name = i.opcode.rsplit('.').nth(at).unwrap_or_default();
    let (sign, bits) = name.split_at_checked(1).unwrap_or_default();
    match bits.parse() {
        Ok(bits) => Ok(Integer { bits, signed: sign == "s" }),
        Err(_) => Err(d.error(format!("`{name}` is not a type of integers"))),
    }
}

/// Fails if the operand is a register that has fewer bits than the type.
fn expect_room(d: &Decoder<'_>, operand: &Operand, ty: Integer) -> Result<(), DecodeError> {
    let bits = match d.class(operand) {
        Some(RegisterClass::B16) => 16,
        Some(RegisterClass::B32) => 32,
        Some(RegisterClass::B64) | None => 64,
        Some(RegisterClass::Predicate) => 0,
    };
    if bits >= ty.bits { Ok(()) } else { Err(d.error(format!("{} bits are wanted, not {bits}", ty.bits))) }
}

/// An integer operand in a register of any width.
#[derive(Clone, Copy)]
enum IntegerSource {
    Word(Source32),
    Double(Source64),
}

impl IntegerSource {
    fn new(d: &mut Decoder<'_>, operand: &Operand, ty: Integer) -> Result<Self, DecodeError> {
        expect_room(d, operand, ty)?;
        match operand {
            Operand::Register(_) if d.class(operand) != Some(RegisterClass::B64) => {
                d.source32(operand).map(Self::Word)
            }
            Operand::Special(_) => d.source32(operand).map(Self::Word),
            other => d.source64(other).map(Self::Double),
        }
    }

    #[inline]
    fn get(self, registers: &Registers, mask: Mask) -> Result<[u64; WARP], Unset> {
        match self {
            Self::Double(source) => registers.get64(source, mask),
            Self::Word(source) => {
                let words = registers.get32(source, mask)?;
                Ok(each(|lane| u64::from(words[lane])))
            }
        }
    }
}

/// A register of any width for an integer.
#[derive(Clone, Copy)]
enum IntegerResult {
    Half(u32),
    Word(u32),
    Double(u32),
}

impl IntegerResult {
    fn new(d: &Decoder<'_>, operand: &Operand, ty: Integer) -> Result<Self, DecodeError> {
        expect_room(d, operand, ty)?;
        match d.class(operand) {
            Some(RegisterClass::B64) => d.to64(operand).map(Self::Double),
            Some(RegisterClass::B16) => d.to32(operand).map(Self::Half),
            _ => d.to32(operand).map(Self::Word),
        }
    }

    #[inline]
    fn set(self, registers: &mut Registers, mask: Mask, f: impl Fn(usize) -> u64) {
        match self {
            Self::Half(slot) => registers.set32(slot, mask, &each(|lane| f(lane) as u32 & 0xffff)),
            Self::Word(slot) => registers.set32(slot, mask, &each(|lane| f(lane) as u32)),
            Self::Double(slot) => registers.set64(slot, mask, &each(f)),
        }
    }
}

fn integer_to_integer(d: &mut Decoder<'_>, i: &Instruction) -> Result<Run, DecodeError> {
    d.expect_operands(i, 2)?;
    let (to_ty, from_ty) = (integer(d, i, 1)?, integer(d, i, 0)?);
    let to = IntegerResult::new(d, &i.operands[0], to_ty)?;
    let from = IntegerSource::new(d, &i.operands[1], from_ty)?;
    Ok(run(move |registers, mask| {
        let values = from.get(registers, mask)?;
        to.set(registers, mask, |lane| to_ty.extend(from_ty.extend(values[lane])));
        Ok(())
    }))
}

fn float_to_integer<A: Lane>(
    d: &mut Decoder<'_>,
    i: &Instruction,
    convert: impl Fn(A, Whole, Integer) -> u64 + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    d.expect_operands(i, 2)?;
    let (ty, whole) = (integer(d, i, 1)?, whole(i));
    let to = IntegerResult::new(d, &i.operands[0], ty)?;
    let a = A::source(d, &i.operands[1])?;
    if (ty, whole) == (Integer::S32, Whole::Zero) {
        // What kernels run most has a loop of its own.
        return Ok(run(move |registers, mask| {
            let values = A::get(registers, a, mask)?;
            to.set(registers, mask, |lane| convert(values[lane], Whole::Zero, Integer::S32));
            Ok(())
        }));
    }
    Ok(run(move |registers, mask| {
        let values = A::get(registers, a, mask)?;
        to.set(registers, mask, |lane| convert(values[lane], whole, ty));
        Ok(())
    }))
}

fn integer_to_float<R: Lane>(
    d: &mut Decoder<'_>,
    i: &Instruction,
    convert: impl Fn(u64, Integer, Rounding) -> R + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    d.expect_operands(i, 2)?;
    let (ty, rounding) = (integer(d, i, 0)?, rounding(i));
    let to = R::result(d, &i.operands[0])?;
    let from = IntegerSource::new(d, &i.operands[1], ty)?;
    Ok(run(move |registers, mask| {
        let values = from.get(registers, mask)?;
        R::set(registers, to, mask, &each(|lane| convert(values[lane], ty, rounding)));
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use crate::op::trial::{Value::*, b16, b32, b64, refused};

    const NAN: u32 = 0x7fff_ffff;

    #[test]
    fn integers_are_cut_and_extended() {
        assert_eq!(b64("cvt.u64.u32", &[B32(u32::MAX)]), 0xffff_ffff);
        assert_eq!(b64("cvt.s64.s32", &[B32(u32::MAX)]), u64::MAX);
        assert_eq!(b32("cvt.u32.u64", &[B64(0x1_8000_0001)]), 0x8000_0001);
        assert_eq!(b32("cvt.s32.s16", &[B16(0x8000)]), 0xffff_8000);
        assert_eq!(b32("cvt.u32.u16", &[B16(0x8000)]), 0x8000);
        assert_eq!(b16("cvt.u16.u32", &[B32(0x1_2345)]), 0x2345);
        assert_eq!(b16("cvt.u16.u64", &[B64(0x9_1234)]), 0x1234);
        assert_eq!(b64("cvt.u64.s32", &[B32(u32::MAX)]), u64::MAX);
        assert_eq!(b64("cvt.u64.u16", &[B16(0xffff)]), 0xffff);
        assert_eq!(b32("cvt.u32.s64", &[Integer(u64::MAX)]), u32::MAX);
    }

    #[test]
    fn registers_may_be_wider_than_the_type() {
        assert_eq!(b32("cvt.s32.s8", &[B32(0x1234_5680)]), 0xffff_ff80);
        assert_eq!(b16("cvt.s16.s8", &[B16(0x1280)]), 0xff80);
        assert_eq!(b16("cvt.u8.u32", &[B32(0x1ff)]), 0xff);
        assert_eq!(b32("cvt.s8.s32", &[B32(0x80)]), 0xffff_ff80);
        assert_eq!(b32("cvt.u16.u32", &[B32(0xabcd_1234)]), 0x1234);
        assert_eq!(b64("cvt.s32.s64", &[B64(0x8000_0000)]), 0xffff_ffff_8000_0000);
        assert!(refused("cvt.u32.u64", &[B32(1)]).contains("`cvt.u32.u64`"));
        assert!(refused("cvt.s32.s32", &[B16(1)]).contains("32 bits are wanted, not 16"));
    }

    #[test]
    fn numbers_become_whole() {
        let to = |mode: &str, value: f32| b32(&format!("cvt.{mode}.s32.f32"), &[Float32(value)]) as i32;
        for (value, rni, rzi, rmi, rpi) in [
            (0.5, 0, 0, 0, 1),
            (1.5, 2, 1, 1, 2),
            (2.5, 2, 2, 2, 3),
            (-0.5, 0, 0, -1, 0),
            (-1.5, -2, -1, -2, -1),
            (-2.7, -3, -2, -3, -2),
        ] {
            assert_eq!(to("rni", value), rni);
            assert_eq!(to("rzi", value), rzi);
            assert_eq!(to("rmi", value), rmi);
            assert_eq!(to("rpi", value), rpi);
        }
        assert_eq!(b32("cvt.rpi.s32.f32", &[B32(1)]), 1);
        assert_eq!(b32("cvt.rpi.ftz.s32.f32", &[B32(1)]), 0);
        assert_eq!(b32("cvt.rni.f32.f32", &[Float32(2.5)]), 2_f32.to_bits());
        assert_eq!(b32("cvt.rmi.f32.f32", &[Float32(-0.0)]), 0x8000_0000);
        assert_eq!(b32("cvt.rzi.ftz.f32.f32", &[B32(0xffc0_0000)]), NAN);
        assert_eq!(b64("cvt.rpi.f64.f64", &[Float64(1.25)]), 2_f64.to_bits());
        assert_eq!(b32("cvt.rzi.s32.f16", &[B16(0x4100)]), 2);
    }

    #[test]
    fn conversions_to_integers_clamp() {
        let inf = f32::INFINITY;
        assert_eq!(b32("cvt.rzi.s32.f32", &[Float32(3e9)]), 0x7fff_ffff);
        assert_eq!(b32("cvt.rzi.s32.f32", &[Float32(-inf)]), 0x8000_0000);
        assert_eq!(b32("cvt.rzi.u32.f32", &[Float32(-1.0)]), 0);
        assert_eq!(b32("cvt.rzi.u32.f32", &[Float32(inf)]), u32::MAX);
        assert_eq!(b64("cvt.rzi.u64.f32", &[Float32(inf)]), u64::MAX);
        assert_eq!(b64("cvt.rzi.s64.f32", &[Float32(-1e30)]), 1 << 63);
        assert_eq!(b16("cvt.rzi.s16.f32", &[Float32(1e6)]), 0x7fff);
        assert_eq!(b16("cvt.rzi.u16.f32", &[Float32(1e6)]), 0xffff);
        assert_eq!(b32("cvt.rzi.s8.f32", &[Float32(-300.0)]), 0xffff_ff80);
        assert_eq!(b32("cvt.rni.sat.u8.f32", &[Float32(254.5)]), 254);
    }

    #[test]
    fn nan_becomes_zero_or_the_highest_bit() {
        assert_eq!(b32("cvt.rzi.s32.f32", &[B32(NAN)]), 0);
        assert_eq!(b32("cvt.rni.u32.f32", &[B32(NAN)]), 0);
        assert_eq!(b64("cvt.rzi.s64.f32", &[B32(NAN)]), 1 << 63);
        assert_eq!(b64("cvt.rzi.u64.f32", &[B32(NAN)]), 1 << 63);
        assert_eq!(b32("cvt.rzi.s32.f64", &[Float64(f64::NAN)]), 1 << 31);
    }

    #[test]
    fn integers_become_numbers() {
        assert_eq!(b32("cvt.rn.f32.s32", &[B32(-3_i32 as u32)]), (-3_f32).to_bits());
        assert_eq!(b32("cvt.rn.f32.u32", &[B32(u32::MAX)]), 4_294_967_296_f32.to_bits());
        assert_eq!(b32("cvt.rz.f32.u32", &[B32(u32::MAX)]), 4_294_967_040_f32.to_bits());
        assert_eq!(b32("cvt.rn.f32.s32", &[B32(0x0100_0001)]), 16_777_216_f32.to_bits());
        assert_eq!(b32("cvt.rn.f32.s32", &[B32(0x0100_0003)]), 16_777_220_f32.to_bits());
        assert_eq!(b32("cvt.rn.f32.s64", &[B64(1 << 63)]), (-9_223_372_036_854_775_808_f32).to_bits());
        assert_eq!(b32("cvt.rn.f32.u8", &[B16(0x1ff)]), 255_f32.to_bits());
        assert_eq!(b64("cvt.rn.f64.s32", &[Integer(-2_i64 as u64)]), (-2_f64).to_bits());
        assert_eq!(b64("cvt.rz.f64.u64", &[B64(u64::MAX)]), 18_446_744_073_709_549_568_f64.to_bits());
    }

    #[test]
    fn numbers_change_between_f32_and_f64() {
        assert_eq!(b64("cvt.f64.f32", &[Float32(-1.5)]), (-1.5_f64).to_bits());
        assert_eq!(b64("cvt.ftz.f64.f32", &[B32(0x8000_0001)]), 1 << 63);
        assert_eq!(b32("cvt.rn.f32.f64", &[Float64(1.0 / 3.0)]), 0x3eaa_aaab);
        assert_eq!(b32("cvt.rz.f32.f64", &[Float64(1.0 / 3.0)]), 0x3eaa_aaaa);
        assert_eq!(b32("cvt.rz.f32.f64", &[Float64(1e300)]), f32::MAX.to_bits());
        assert_eq!(b32("cvt.rn.f32.f64", &[Float64(1e300)]), f32::INFINITY.to_bits());
        assert_eq!(b32("cvt.rn.ftz.f32.f64", &[Float64(-1e-40)]), 0x8000_0000);
        assert_eq!(b32("cvt.rn.sat.f32.f64", &[Float64(7.0)]), 1_f32.to_bits());
        assert_eq!(b32("cvt.rn.f32.f64", &[B64(0xfff8_0000_0000_0000)]), NAN);
        assert_eq!(b32("cvt.sat.f32.f32", &[Float32(f32::NAN)]), 0);
        assert_eq!(b32("cvt.ftz.sat.f32.f32", &[B32(1)]), 0);
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        let to = |bits: u32| b16("cvt.rn.bf16.f32", &[B32(bits)]);
        assert_eq!(to(0x3f80_8000), 0x3f80);
        assert_eq!(to(0x3f81_8000), 0x3f82);
        assert_eq!(to(0x3f80_8001), 0x3f81);
        assert_eq!(to(0x7f7f_ffff), 0x7f80);
        assert_eq!(to(0xff80_0000), 0xff80);
        assert_eq!(to(0xff80_0001), 0x7fff);
        assert_eq!(to(0x8000_0001), 0x8000);
        assert_eq!(to(0x0000_8001), 0x0001);
        assert_eq!(b16("cvt.rz.bf16.f32", &[B32(0x7f7f_ffff)]), 0x7f7f);
        assert_eq!(b16("cvt.rn.relu.bf16.f32", &[Float32(-2.0)]), 0);
        assert_eq!(b16("cvt.rn.relu.bf16.f32", &[B32(NAN)]), 0x7fff);
        assert_eq!(b32("cvt.f32.bf16", &[B16(0xc020)]), (-2.5_f32).to_bits());
        assert_eq!(b32("cvt.f32.bf16", &[B16(0xffc1)]), NAN);
    }

    #[test]
    fn f16_rounds_to_nearest_even() {
        let to = |value: f32| b16("cvt.rn.f16.f32", &[Float32(value)]);
        assert_eq!(to(1.0), 0x3c00);
        assert_eq!(to(1.0 + 1.0 / 2048.0), 0x3c00);
        assert_eq!(to(1.0 + 3.0 / 2048.0), 0x3c02);
        assert_eq!(to(65519.0), 0x7bff);
        assert_eq!(to(65520.0), 0x7c00);
        assert_eq!(to(f32::from_bits(0x3300_0000)), 0);
        assert_eq!(to(f32::from_bits(0x3300_0001)), 1);
        assert_eq!(to(-0.0), 0x8000);
        assert_eq!(b16("cvt.rn.f16.f32", &[B32(0xffff_ffff)]), 0x7fff);
        assert_eq!(b16("cvt.rz.f16.f32", &[Float32(1e9)]), 0x7bff);
        assert_eq!(b16("cvt.rz.f16.f32", &[Float32(-1.999_999)]), 0xbfff);
        assert_eq!(b32("cvt.f32.f16", &[B16(0x0001)]), 0x3380_0000);
        assert_eq!(b32("cvt.f32.f16", &[B16(0xfc00)]), f32::NEG_INFINITY.to_bits());
    }

    #[test]
    fn the_second_operand_of_a_pair_is_the_low_half() {
        assert_eq!(b32("cvt.rn.bf16x2.f32", &[Float32(1.0), Float32(2.0)]), 0x3f80_4000);
        assert_eq!(b32("cvt.rn.f16x2.f32", &[Float32(1.0), Float32(-2.0)]), 0x3c00_c000);
        assert_eq!(b32("cvt.rn.relu.f16x2.f32", &[Float32(1.0), Float32(-2.0)]), 0x3c00_0000);
        assert_eq!(b32("cvt.rz.bf16x2.f32", &[B32(0x3f80_ffff), B32(NAN)]), 0x3f80_7fff);
    }

    #[test]
    fn tf32_rounds_ties_away_from_zero() {
        assert_eq!(b32("cvt.rna.tf32.f32", &[B32(0x3f80_1000)]), 0x3f80_2000);
        assert_eq!(b32("cvt.rna.tf32.f32", &[B32(0xbf80_1000)]), 0xbf80_2000);
        assert_eq!(b32("cvt.rna.tf32.f32", &[B32(0x3f80_0fff)]), 0x3f80_0000);
        assert_eq!(b32("cvt.rna.tf32.f32", &[B32(0x7f7f_ffff)]), 0x7f80_0000);
        assert_eq!(b32("cvt.rna.tf32.f32", &[B32(0xff80_0000)]), 0xff80_0000);
        assert_eq!(b32("cvt.rna.tf32.f32", &[B32(0xff80_0001)]), NAN);
    }
}

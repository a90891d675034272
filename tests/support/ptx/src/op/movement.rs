//! Moves, packing and unpacking (PTX ISA sections 9.7.9.3 and 9.7.9.4), and `cvta` (9.7.9.20).

use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::op::lanes::{self, Lane, each, run, unary};
use crate::syntax::{Instruction, Operand};

const fn form(section: &'static str, syntax: &'static str, decode: super::Decode) -> Form {
    lanes::form(section, Kind::Integer, syntax, decode)
}

/// The family's forms. All state spaces share the machine's one map of addresses, which makes `cvta` a move.
pub(super) const FORMS: &[Form] = &[
    form("9.7.9.3", "mov.{b16,u16,s16}", |d, i| unary(d, i, |a: u16| a)),
    form("9.7.9.3", "mov.{u32,s32}", |d, i| unary(d, i, |a: u32| a)),
    form("9.7.9.3", "mov.{u64,s64}", |d, i| unary(d, i, |a: u64| a)),
    form("9.7.9.3", "mov.f32", |d, i| unary(d, i, |a: f32| a)),
    form("9.7.9.3", "mov.f64", |d, i| unary(d, i, |a: f64| a)),
    form("9.7.9.4", "mov.b32", |d, i| match operands(d, i)? {
        (Operand::List(parts), whole) => unpack::<u16, u32>(d, parts, whole, 2),
        (whole, Operand::List(parts)) => pack::<u16, u32>(d, whole, parts, 2),
        _ => unary(d, i, |a: u32| a),
    }),
    form("9.7.9.4", "mov.b64", |d, i| match operands(d, i)? {
        (Operand::List(parts), whole) if parts.len() == 4 => unpack::<u16, u64>(d, parts, whole, 4),
        (Operand::List(parts), whole) => unpack::<u32, u64>(d, parts, whole, 2),
        (whole, Operand::List(parts)) if parts.len() == 4 => pack::<u16, u64>(d, whole, parts, 4),
        (whole, Operand::List(parts)) => pack::<u32, u64>(d, whole, parts, 2),
        _ => unary(d, i, |a: u64| a),
    }),
    form(
        "9.7.9.20",
        "cvta.{to,}.{global,shared,shared::cta,shared::cluster,local,const,param,param::entry}.u64",
        |d, i| unary(d, i, |a: u64| a),
    ),
];

fn operands<'i>(d: &Decoder<'_>, i: &'i Instruction) -> Result<(&'i Operand, &'i Operand), DecodeError> {
    d.expect_operands(i, 2)?;
    Ok((&i.operands[0], &i.operands[1]))
}

/// A lane type whose bits can be put together and taken apart.
trait Bits: Lane {
    const WIDTH: u32;
    fn widen(self) -> u64;
    fn narrow(bits: u64) -> Self;
}

macro_rules! bits {
    ($($ty:ty),*) => {$(
        impl Bits for $ty {
            const WIDTH: u32 = <$ty>::BITS;

            fn widen(self) -> u64 {
                u64::from(self)
            }

            fn narrow(bits: u64) -> Self {
                bits as $ty
            }
        }
    )*};
}

bits!(u16, u32, u64);

/// `mov d, {a, b, …}`: the first part is the lowest.
fn pack<P: Bits, W: Bits>(
    d: &mut Decoder<'_>,
    whole: &Operand,
    parts: &[Operand],
    n: usize,
) -> Result<Run, DecodeError> {
    expect_parts(d, parts, n)?;
    let to = W::result(d, whole)?;
    let parts: Vec<P::Source> = parts.iter().map(|part| P::source(d, part)).collect::<Result<_, _>>()?;
    Ok(run(move |registers, mask| {
        let mut values = [0_u64; crate::registers::WARP];
        for (part, at) in parts.iter().zip(0..) {
            let part = P::get(registers, *part, mask)?;
            for (value, part) in values.iter_mut().zip(part) {
                *value |= part.widen() << (at * P::WIDTH);
            }
        }
        W::set(registers, to, mask, &each(|lane| W::narrow(values[lane])));
        Ok(())
    }))
}

/// `mov {a, b, …}, d`, where a part may be `_`.
fn unpack<P: Bits, W: Bits>(
    d: &mut Decoder<'_>,
    parts: &[Operand],
    whole: &Operand,
    n: usize,
) -> Result<Run, DecodeError> {
    expect_parts(d, parts, n)?;
    let from = W::source(d, whole)?;
    let slot = |part: &Operand| match part {
        Operand::Sink => Ok(None),
        other => P::result(d, other).map(Some),
    };
    let parts: Vec<Option<u32>> = parts.iter().map(slot).collect::<Result<_, _>>()?;
    Ok(run(move |registers, mask| {
        let values = W::get(registers, from, mask)?;
        for (part, at) in parts.iter().zip(0..) {
            if let Some(slot) = *part {
                let value = each(|lane| P::narrow(values[lane].widen() >> (at * P::WIDTH)));
                P::set(registers, slot, mask, &value);
            }
        }
        Ok(())
    }))
}

fn expect_parts(d: &Decoder<'_>, parts: &[Operand], n: usize) -> Result<(), DecodeError> {
    if parts.len() == n { Ok(()) } else { Err(d.error(format!("{} parts, {n} wanted", parts.len()))) }
}

#[cfg(test)]
mod tests {
    use crate::op::trial::{self, Value::*, b16, b32, b64, refused};
    use crate::syntax::RegisterClass;

    #[test]
    fn moves_keep_bits() {
        assert_eq!(b32("mov.b32", &[B32(0xffc0_1234)]), 0xffc0_1234);
        assert_eq!(b32("mov.f32", &[Float32(1.5)]), 0x3fc0_0000);
        assert_eq!(b32("mov.b32", &[Float32(1.5)]), 0x3fc0_0000);
        assert_eq!(b16("mov.b16", &[Integer(0x1_2345)]), 0x2345);
        assert_eq!(b64("mov.b64", &[Integer(u64::MAX)]), u64::MAX);
        assert_eq!(b64("mov.f64", &[Float64(1.0)]), 1_f64.to_bits());
        assert_eq!(b32("mov.f32", &[B32(0xff80_0001)]), 0xff80_0001);
    }

    #[test]
    fn variables_are_addresses() {
        assert_eq!(b64("mov.b64", &[Symbol]), trial::SYMBOL);
        assert_eq!(b32("mov.u32", &[Symbol]), trial::SYMBOL as u32);
        assert_eq!(b64("cvta.param.u64", &[B64(77)]), 77);
        assert_eq!(b64("cvta.to.global.u64", &[B64(77)]), 77);
        assert_eq!(b64("cvta.shared.u64", &[Symbol]), trial::SYMBOL);
    }

    #[test]
    fn the_first_part_is_the_lowest() {
        assert_eq!(b32("mov.b32", &[List(&[B16(0x1111), B16(0x2222)])]), 0x2222_1111);
        assert_eq!(b64("mov.b64", &[List(&[B32(1), B32(2)])]), 0x2_0000_0001);
        assert_eq!(b64("mov.b64", &[List(&[B16(1), B16(2), B16(3), B16(4)])]), 0x0004_0003_0002_0001);
        assert_eq!(trial::parts("mov.b32", RegisterClass::B16, 2, B32(0x2222_1111)), [0x1111, 0x2222]);
        assert_eq!(trial::parts("mov.b64", RegisterClass::B32, 2, B64(0x2_0000_0001)), [1, 2]);
        assert_eq!(trial::parts("mov.b64", RegisterClass::B16, 4, B64(0x0004_0003_0002_0001)), [1, 2, 3, 4]);
    }

    #[test]
    fn widths_do_not_mix() {
        assert!(refused("mov.b32", &[B64(1)]).contains("`mov.b32`"));
        assert!(refused("mov.b32", &[B16(1)]).contains("`mov.b32`"));
        assert!(refused("mov.b32", &[List(&[B32(1), B32(2)])]).contains("`mov.b32`"));
        assert!(refused("mov.b64", &[List(&[B32(1), B32(2), B32(3)])]).contains("3 parts"));
    }
}

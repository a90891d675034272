//! Logic and shifts (PTX ISA section 9.7.8) of registers; those of predicates are with the comparisons.

use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::op::lanes::{self, Lane, binary, each, run, ternary, unary};
use crate::syntax::Instruction;

const fn form(section: &'static str, syntax: &'static str, decode: super::Decode) -> Form {
    lanes::form(section, Kind::Integer, syntax, decode)
}

/// The family's forms. A shift by the width or more gives what shifting one at a time would; the count has 32
/// bits whatever the type.
pub(super) const FORMS: &[Form] = &[
    form("9.7.8.1", "and.b16", |d, i| binary(d, i, |a: u16, b: u16| a & b)),
    form("9.7.8.1", "and.b32", |d, i| binary(d, i, |a: u32, b: u32| a & b)),
    form("9.7.8.1", "and.b64", |d, i| binary(d, i, |a: u64, b: u64| a & b)),
    form("9.7.8.2", "or.b16", |d, i| binary(d, i, |a: u16, b: u16| a | b)),
    form("9.7.8.2", "or.b32", |d, i| binary(d, i, |a: u32, b: u32| a | b)),
    form("9.7.8.2", "or.b64", |d, i| binary(d, i, |a: u64, b: u64| a | b)),
    form("9.7.8.3", "xor.b16", |d, i| binary(d, i, |a: u16, b: u16| a ^ b)),
    form("9.7.8.3", "xor.b32", |d, i| binary(d, i, |a: u32, b: u32| a ^ b)),
    form("9.7.8.3", "xor.b64", |d, i| binary(d, i, |a: u64, b: u64| a ^ b)),
    form("9.7.8.4", "not.b16", |d, i| unary(d, i, |a: u16| !a)),
    form("9.7.8.4", "not.b32", |d, i| unary(d, i, |a: u32| !a)),
    form("9.7.8.4", "not.b64", |d, i| unary(d, i, |a: u64| !a)),
    form("9.7.8.5", "cnot.b16", |d, i| unary(d, i, |a: u16| u16::from(a == 0))),
    form("9.7.8.5", "cnot.b32", |d, i| unary(d, i, |a: u32| u32::from(a == 0))),
    form("9.7.8.5", "cnot.b64", |d, i| unary(d, i, |a: u64| u64::from(a == 0))),
    form("9.7.8.6", "lop3.b32", lop3),
    form("9.7.8.7", "shf.l.wrap.b32", |d, i| ternary(d, i, |a, b, c: u32| funnel_left(a, b, c & 31))),
    form("9.7.8.7", "shf.l.clamp.b32", |d, i| ternary(d, i, |a, b, c: u32| funnel_left(a, b, c.min(32)))),
    form("9.7.8.7", "shf.r.wrap.b32", |d, i| ternary(d, i, |a, b, c: u32| funnel_right(a, b, c & 31))),
    form("9.7.8.7", "shf.r.clamp.b32", |d, i| ternary(d, i, |a, b, c: u32| funnel_right(a, b, c.min(32)))),
    form("9.7.8.8", "shl.b16", |d, i| binary(d, i, |a: u16, b: u32| if b < 16 { a << b } else { 0 })),
    form("9.7.8.8", "shl.b32", |d, i| binary(d, i, |a: u32, b: u32| if b < 32 { a << b } else { 0 })),
    form("9.7.8.8", "shl.b64", |d, i| binary(d, i, |a: u64, b: u32| if b < 64 { a << b } else { 0 })),
    form("9.7.8.9", "shr.{b16,u16}", |d, i| binary(d, i, |a: u16, b: u32| if b < 16 { a >> b } else { 0 })),
    form("9.7.8.9", "shr.{b32,u32}", |d, i| binary(d, i, |a: u32, b: u32| if b < 32 { a >> b } else { 0 })),
    form("9.7.8.9", "shr.{b64,u64}", |d, i| binary(d, i, |a: u64, b: u32| if b < 64 { a >> b } else { 0 })),
    form("9.7.8.9", "shr.s16", |d, i| binary(d, i, |a: i16, b: u32| a >> b.min(15))),
    form("9.7.8.9", "shr.s32", |d, i| binary(d, i, |a: i32, b: u32| a >> b.min(31))),
    form("9.7.8.9", "shr.s64", |d, i| binary(d, i, |a: i64, b: u32| a >> b.min(63))),
];

/// The high word of `b:a` shifted left by at most 32.
fn funnel_left(a: u32, b: u32, count: u32) -> u32 {
    (((u64::from(b) << 32 | u64::from(a)) << count) >> 32) as u32
}

/// The low word of `b:a` shifted right by at most 32.
fn funnel_right(a: u32, b: u32, count: u32) -> u32 {
    ((u64::from(b) << 32 | u64::from(a)) >> count) as u32
}

/// `lop3.b32 d, a, b, c, table`: bit `a<<2 | b<<1 | c` of the table, for each bit.
fn lop3(d: &mut Decoder<'_>, i: &Instruction) -> Result<Run, DecodeError> {
    d.expect_operands(i, 5)?;
    let to = u32::result(d, &i.operands[0])?;
    let (a, b) = (u32::source(d, &i.operands[1])?, u32::source(d, &i.operands[2])?);
    let c = u32::source(d, &i.operands[3])?;
    let table = d.constant(&i.operands[4])?;
    if table > 0xff {
        return Err(d.error(format!("a table of truth has 8 bits, not {table:#x}")));
    }
    // All ones where the table has a one.
    let rows: [u32; 8] = std::array::from_fn(|row| if table >> row & 1 == 1 { u32::MAX } else { 0 });
    Ok(run(move |registers, mask| {
        let (a, b) = (u32::get(registers, a, mask)?, u32::get(registers, b, mask)?);
        let c = u32::get(registers, c, mask)?;
        let choose = |of: u32, one: u32, zero: u32| (of & one) | (!of & zero);
        let value = |lane: usize| {
            let under_b = |row: usize| {
                let zero = choose(c[lane], rows[row + 1], rows[row]);
                choose(b[lane], choose(c[lane], rows[row + 3], rows[row + 2]), zero)
            };
            choose(a[lane], under_b(4), under_b(0))
        };
        u32::set(registers, to, mask, &each(value));
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use crate::op::trial::{Value::*, b16, b32, b64, refused};

    #[test]
    fn logic_is_bitwise() {
        assert_eq!(b32("and.b32", &[B32(0b1100), B32(0b1010)]), 0b1000);
        assert_eq!(b32("or.b32", &[B32(0b1100), B32(0b1010)]), 0b1110);
        assert_eq!(b32("xor.b32", &[B32(0b1100), Integer(u64::MAX)]), !0b1100);
        assert_eq!(b16("not.b16", &[B16(0x00ff)]), 0xff00);
        assert_eq!(b64("not.b64", &[B64(0)]), u64::MAX);
        assert_eq!(b64("or.b64", &[B64(1 << 40), Integer(3)]), 1 << 40 | 3);
        assert_eq!(b32("cnot.b32", &[B32(0)]), 1);
        assert_eq!(b32("cnot.b32", &[B32(5)]), 0);
    }

    #[test]
    fn shifts_clamp_their_count() {
        assert_eq!(b32("shl.b32", &[B32(3), Integer(31)]), 1 << 31);
        assert_eq!(b32("shl.b32", &[B32(3), Integer(32)]), 0);
        assert_eq!(b32("shl.b32", &[B32(3), B32(u32::MAX)]), 0);
        assert_eq!(b64("shl.b64", &[B64(3), B32(63)]), 1 << 63);
        assert_eq!(b64("shl.b64", &[B64(3), B32(64)]), 0);
        assert_eq!(b16("shl.b16", &[B16(3), B32(15)]), 0x8000);
        assert_eq!(b16("shl.b16", &[B16(3), B32(16)]), 0);
        assert_eq!(b32("shr.u32", &[B32(1 << 31), Integer(31)]), 1);
        assert_eq!(b32("shr.u32", &[B32(1 << 31), Integer(32)]), 0);
        assert_eq!(b32("shr.s32", &[B32(1 << 31), Integer(31)]), u32::MAX);
        assert_eq!(b32("shr.s32", &[B32(1 << 31), Integer(99)]), u32::MAX);
        assert_eq!(b16("shr.s16", &[B16(0x8000), Integer(4)]), 0xf800);
        assert_eq!(b16("shr.u16", &[B16(0x8000), Integer(16)]), 0);
        assert_eq!(b64("shr.s64", &[B64(1 << 63), Integer(64)]), u64::MAX);
        assert_eq!(b64("shr.u64", &[B64(1 << 63), Integer(63)]), 1);
    }

    #[test]
    fn a_shift_count_has_32_bits() {
        assert!(refused("shl.b64", &[B64(1), B64(1)]).contains("`shl.b64`"));
        assert!(refused("shl.b16", &[B16(1), B16(1)]).contains("`shl.b16`"));
    }

    #[test]
    fn funnel_shifts_wrap_or_clamp() {
        let shf = |name: &str, n: u64| b32(name, &[B32(0x8765_4321), B32(0x0fed_cba9), Integer(n)]);
        assert_eq!(shf("shf.l.wrap.b32", 4), 0xfedc_ba98);
        assert_eq!(shf("shf.l.wrap.b32", 32), 0x0fed_cba9);
        assert_eq!(shf("shf.l.clamp.b32", 32), 0x8765_4321);
        assert_eq!(shf("shf.l.clamp.b32", 40), 0x8765_4321);
        assert_eq!(shf("shf.r.wrap.b32", 4), 0x9876_5432);
        assert_eq!(shf("shf.r.wrap.b32", 36), 0x9876_5432);
        assert_eq!(shf("shf.r.clamp.b32", 36), 0x0fed_cba9);
    }

    #[test]
    fn lop3_looks_bits_up() {
        let lop3 = |table: u64| {
            b32("lop3.b32", &[B32(0xf0f0_00ff), B32(0xcccc_0f0f), B32(0xaaaa_3333), Integer(table)])
        };
        let (a, b, c) = (0xf0f0_00ff_u32, 0xcccc_0f0f_u32, 0xaaaa_3333_u32);
        assert_eq!(lop3(0xf0), a);
        assert_eq!(lop3(0xcc), b);
        assert_eq!(lop3(0xaa), c);
        assert_eq!(lop3(0x80), a & b & c);
        assert_eq!(lop3(0x96), a ^ b ^ c);
        assert_eq!(lop3(0xf0 & !0xcc | 0xaa), a & !b | c);
    }
}

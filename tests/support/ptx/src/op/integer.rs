//! Integer arithmetic (PTX ISA section 9.7.1), and `prmt`.

use crate::machine::decode::{Form, Kind};
use crate::op::lanes::{self, binary, quaternary, ternary, unary};

const fn form(section: &'static str, syntax: &'static str, decode: super::Decode) -> Form {
    lanes::form(section, Kind::Integer, syntax, decode)
}

/// The family's forms.
pub(super) const FORMS: &[Form] = &[
    form("9.7.1.1", "add.{u16,s16}", |d, i| binary(d, i, u16::wrapping_add)),
    form("9.7.1.1", "add.{u32,s32}", |d, i| binary(d, i, u32::wrapping_add)),
    form("9.7.1.1", "add.{u64,s64}", |d, i| binary(d, i, u64::wrapping_add)),
    form("9.7.1.1", "add.sat.s32", |d, i| binary(d, i, i32::saturating_add)),
    form("9.7.1.2", "sub.{u16,s16}", |d, i| binary(d, i, u16::wrapping_sub)),
    form("9.7.1.2", "sub.{u32,s32}", |d, i| binary(d, i, u32::wrapping_sub)),
    form("9.7.1.2", "sub.{u64,s64}", |d, i| binary(d, i, u64::wrapping_sub)),
    form("9.7.1.2", "sub.sat.s32", |d, i| binary(d, i, i32::saturating_sub)),
    form("9.7.1.3", "mul.lo.{u16,s16}", |d, i| binary(d, i, u16::wrapping_mul)),
    form("9.7.1.3", "mul.lo.{u32,s32}", |d, i| binary(d, i, u32::wrapping_mul)),
    form("9.7.1.3", "mul.lo.{u64,s64}", |d, i| binary(d, i, u64::wrapping_mul)),
    form("9.7.1.3", "mul.hi.u16", |d, i| binary(d, i, high_u16)),
    form("9.7.1.3", "mul.hi.s16", |d, i| binary(d, i, high_s16)),
    form("9.7.1.3", "mul.hi.u32", |d, i| binary(d, i, high_u32)),
    form("9.7.1.3", "mul.hi.s32", |d, i| binary(d, i, high_s32)),
    form("9.7.1.3", "mul.hi.u64", |d, i| binary(d, i, high_u64)),
    form("9.7.1.3", "mul.hi.s64", |d, i| binary(d, i, high_s64)),
    form("9.7.1.3", "mul.wide.u16", |d, i| binary(d, i, wide_u16)),
    form("9.7.1.3", "mul.wide.s16", |d, i| binary(d, i, wide_s16)),
    form("9.7.1.3", "mul.wide.u32", |d, i| binary(d, i, wide_u32)),
    form("9.7.1.3", "mul.wide.s32", |d, i| binary(d, i, wide_s32)),
    form("9.7.1.4", "mad.lo.{u16,s16}", |d, i| {
        ternary(d, i, |a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c))
    }),
    form("9.7.1.4", "mad.lo.{u32,s32}", |d, i| {
        ternary(d, i, |a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c))
    }),
    form("9.7.1.4", "mad.lo.{u64,s64}", |d, i| {
        ternary(d, i, |a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c))
    }),
    form("9.7.1.4", "mad.hi.u32", |d, i| ternary(d, i, |a, b, c: u32| high_u32(a, b).wrapping_add(c))),
    form("9.7.1.4", "mad.hi.s32", |d, i| ternary(d, i, |a, b, c: i32| high_s32(a, b).wrapping_add(c))),
    form("9.7.1.4", "mad.wide.u16", |d, i| ternary(d, i, |a, b, c: u32| wide_u16(a, b).wrapping_add(c))),
    form("9.7.1.4", "mad.wide.s16", |d, i| ternary(d, i, |a, b, c: i32| wide_s16(a, b).wrapping_add(c))),
    form("9.7.1.4", "mad.wide.u32", |d, i| ternary(d, i, |a, b, c: u64| wide_u32(a, b).wrapping_add(c))),
    form("9.7.1.4", "mad.wide.s32", |d, i| ternary(d, i, |a, b, c: i64| wide_s32(a, b).wrapping_add(c))),
    // Division by zero gives a value that PTX leaves open; here it is the one that GPUs give: all ones, and
    // the dividend as remainder.
    form("9.7.1.8", "div.u16", |d, i| binary(d, i, |a: u16, b: u16| a.checked_div(b).unwrap_or(u16::MAX))),
    form("9.7.1.8", "div.u32", |d, i| binary(d, i, |a: u32, b: u32| a.checked_div(b).unwrap_or(u32::MAX))),
    form("9.7.1.8", "div.u64", |d, i| binary(d, i, |a: u64, b: u64| a.checked_div(b).unwrap_or(u64::MAX))),
    form("9.7.1.8", "div.s16", |d, i| {
        binary(d, i, |a: i16, b: i16| if b == 0 { -1 } else { a.wrapping_div(b) })
    }),
    form("9.7.1.8", "div.s32", |d, i| {
        binary(d, i, |a: i32, b: i32| if b == 0 { -1 } else { a.wrapping_div(b) })
    }),
    form("9.7.1.8", "div.s64", |d, i| {
        binary(d, i, |a: i64, b: i64| if b == 0 { -1 } else { a.wrapping_div(b) })
    }),
    form("9.7.1.9", "rem.u16", |d, i| binary(d, i, |a: u16, b: u16| a.checked_rem(b).unwrap_or(a))),
    form("9.7.1.9", "rem.u32", |d, i| binary(d, i, |a: u32, b: u32| a.checked_rem(b).unwrap_or(a))),
    form("9.7.1.9", "rem.u64", |d, i| binary(d, i, |a: u64, b: u64| a.checked_rem(b).unwrap_or(a))),
    form("9.7.1.9", "rem.s16", |d, i| {
        binary(d, i, |a: i16, b: i16| if b == 0 { a } else { a.wrapping_rem(b) })
    }),
    form("9.7.1.9", "rem.s32", |d, i| {
        binary(d, i, |a: i32, b: i32| if b == 0 { a } else { a.wrapping_rem(b) })
    }),
    form("9.7.1.9", "rem.s64", |d, i| {
        binary(d, i, |a: i64, b: i64| if b == 0 { a } else { a.wrapping_rem(b) })
    }),
    form("9.7.1.10", "abs.s16", |d, i| unary(d, i, i16::wrapping_abs)),
    form("9.7.1.10", "abs.s32", |d, i| unary(d, i, i32::wrapping_abs)),
    form("9.7.1.10", "abs.s64", |d, i| unary(d, i, i64::wrapping_abs)),
    form("9.7.1.11", "neg.s16", |d, i| unary(d, i, i16::wrapping_neg)),
    form("9.7.1.11", "neg.s32", |d, i| unary(d, i, i32::wrapping_neg)),
    form("9.7.1.11", "neg.s64", |d, i| unary(d, i, i64::wrapping_neg)),
    form("9.7.1.12", "min.u16", |d, i| binary::<u16, _, _>(d, i, u16::min)),
    form("9.7.1.12", "min.s16", |d, i| binary::<i16, _, _>(d, i, i16::min)),
    form("9.7.1.12", "min.u32", |d, i| binary::<u32, _, _>(d, i, u32::min)),
    form("9.7.1.12", "min.s32", |d, i| binary::<i32, _, _>(d, i, i32::min)),
    form("9.7.1.12", "min.u64", |d, i| binary::<u64, _, _>(d, i, u64::min)),
    form("9.7.1.12", "min.s64", |d, i| binary::<i64, _, _>(d, i, i64::min)),
    form("9.7.1.12", "min.relu.s32", |d, i| binary(d, i, |a: i32, b: i32| a.min(b).max(0))),
    form("9.7.1.13", "max.u16", |d, i| binary::<u16, _, _>(d, i, u16::max)),
    form("9.7.1.13", "max.s16", |d, i| binary::<i16, _, _>(d, i, i16::max)),
    form("9.7.1.13", "max.u32", |d, i| binary::<u32, _, _>(d, i, u32::max)),
    form("9.7.1.13", "max.s32", |d, i| binary::<i32, _, _>(d, i, i32::max)),
    form("9.7.1.13", "max.u64", |d, i| binary::<u64, _, _>(d, i, u64::max)),
    form("9.7.1.13", "max.s64", |d, i| binary::<i64, _, _>(d, i, i64::max)),
    form("9.7.1.13", "max.relu.s32", |d, i| binary(d, i, |a: i32, b: i32| a.max(b).max(0))),
    form("9.7.1.14", "popc.b32", |d, i| unary(d, i, u32::count_ones)),
    form("9.7.1.14", "popc.b64", |d, i| unary(d, i, u64::count_ones)),
    form("9.7.1.15", "clz.b32", |d, i| unary(d, i, u32::leading_zeros)),
    form("9.7.1.15", "clz.b64", |d, i| unary(d, i, u64::leading_zeros)),
    form("9.7.1.18", "brev.b32", |d, i| unary(d, i, u32::reverse_bits)),
    form("9.7.1.18", "brev.b64", |d, i| unary(d, i, u64::reverse_bits)),
    form("9.7.1.19", "bfe.u32", |d, i| {
        ternary(d, i, |a: u32, b, c| extract_unsigned(u64::from(a), b, c, 32) as u32)
    }),
    form("9.7.1.19", "bfe.u64", |d, i| ternary(d, i, |a: u64, b, c| extract_unsigned(a, b, c, 64))),
    form("9.7.1.19", "bfe.s32", |d, i| {
        ternary(d, i, |a: i32, b, c| extract_signed(i64::from(a), b, c, 32) as i32)
    }),
    form("9.7.1.19", "bfe.s64", |d, i| ternary(d, i, |a: i64, b, c| extract_signed(a, b, c, 64))),
    form("9.7.1.20", "bfi.b32", |d, i| {
        quaternary(d, i, |a: u32, b: u32, c, e| insert(u64::from(a), u64::from(b), c, e, 32) as u32)
    }),
    form("9.7.1.20", "bfi.b64", |d, i| quaternary(d, i, |a: u64, b: u64, c, e| insert(a, b, c, e, 64))),
    form("9.7.9.7", "prmt.b32", |d, i| ternary(d, i, permute)),
];

fn high_u16(a: u16, b: u16) -> u16 {
    (wide_u16(a, b) >> 16) as u16
}

fn high_s16(a: i16, b: i16) -> i16 {
    (wide_s16(a, b) >> 16) as i16
}

fn high_u32(a: u32, b: u32) -> u32 {
    (wide_u32(a, b) >> 32) as u32
}

fn high_s32(a: i32, b: i32) -> i32 {
    (wide_s32(a, b) >> 32) as i32
}

fn high_u64(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b)) >> 64) as u64
}

fn high_s64(a: i64, b: i64) -> i64 {
    ((i128::from(a) * i128::from(b)) >> 64) as i64
}

fn wide_u16(a: u16, b: u16) -> u32 {
    u32::from(a) * u32::from(b)
}

fn wide_s16(a: i16, b: i16) -> i32 {
    i32::from(a) * i32::from(b)
}

fn wide_u32(a: u32, b: u32) -> u64 {
    u64::from(a) * u64::from(b)
}

fn wide_s32(a: i32, b: i32) -> i64 {
    i64::from(a) * i64::from(b)
}

/// The low `count` bits, at most 64.
fn low_bits(count: u32) -> u64 {
    u64::MAX.checked_shr(64_u32.saturating_sub(count)).unwrap_or(0)
}

/// `bfe.u*`: bits beyond the value's `width` are zeros.
fn extract_unsigned(a: u64, position: u32, length: u32, width: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if position >= width { 0 } else { (a >> position) & low_bits(length) }
}

/// `bfe.s*`: the field's highest bit fills the rest, or the value's sign if the field ends beyond its
/// `width`.
fn extract_signed(a: i64, position: u32, length: u32, width: u32) -> i64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if length == 0 {
        return 0;
    }
    let sign = (a >> (position + length - 1).min(width - 1)) & 1;
    let field = if position >= width { 0 } else { (a as u64 >> position) & low_bits(length) };
    // Bits of the field that lie beyond the value are the sign as well.
    let n_known = length.min(width.saturating_sub(position));
    let fill = if sign == 1 { !low_bits(n_known) } else { 0 };
    ((field & low_bits(n_known)) | fill) as i64
}

/// `bfi`: the low bits of `a` over a field of `b`.
fn insert(a: u64, b: u64, position: u32, length: u32, width: u32) -> u64 {
    let (position, length) = (position & 0xff, length & 0xff);
    if position >= width {
        return b;
    }
    let field = low_bits(length) << position;
    (b & !field) | ((a << position) & field)
}

/// `prmt` in its default mode: each nibble of the selector picks a byte of `b:a`, or its sign eight times.
fn permute(a: u32, b: u32, selector: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let pick = |at: u32| {
        let nibble = selector >> (4 * at) & 0xf;
        let byte = (bytes >> (8 * (nibble & 7))) as u8;
        let byte = if nibble & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 };
        u32::from(byte) << (8 * at)
    };
    pick(0) | pick(1) | pick(2) | pick(3)
}

#[cfg(test)]
mod tests {
    use crate::op::trial::{Value::*, b16, b32, b64};

    #[test]
    fn arithmetic_wraps() {
        assert_eq!(b16("add.s16", &[B16(0x7fff), B16(1)]), 0x8000);
        assert_eq!(b16("add.u16", &[B16(0xffff), B16(2)]), 1);
        assert_eq!(b32("add.s32", &[B32(0x7fff_ffff), B32(1)]), 0x8000_0000);
        assert_eq!(b32("add.sat.s32", &[B32(0x7fff_ffff), B32(1)]), 0x7fff_ffff);
        assert_eq!(b32("sub.sat.s32", &[B32(0x8000_0000), B32(1)]), 0x8000_0000);
        assert_eq!(b64("add.s64", &[B64(u64::MAX), B64(2)]), 1);
        assert_eq!(b32("sub.u32", &[B32(0), Integer(1)]), u32::MAX);
        assert_eq!(b16("sub.s16", &[B16(0), Integer(1)]), 0xffff);
        assert_eq!(b32("mul.lo.s32", &[B32(0x1_0001), B32(0x1_0001)]), 0x2_0001);
        assert_eq!(b16("mul.lo.u16", &[B16(0x101), B16(0x101)]), 0x201);
        assert_eq!(b32("mad.lo.s32", &[B32(u32::MAX), B32(5), B32(7)]), 2);
        assert_eq!(b64("mad.lo.s64", &[B64(1 << 63), B64(2), B64(7)]), 7);
    }

    #[test]
    fn high_and_wide_products_know_their_signs() {
        assert_eq!(b32("mul.hi.u32", &[B32(u32::MAX), B32(u32::MAX)]), 0xffff_fffe);
        assert_eq!(b32("mul.hi.s32", &[B32(u32::MAX), B32(u32::MAX)]), 0);
        assert_eq!(b32("mul.hi.s32", &[B32(u32::MAX), B32(2)]), u32::MAX);
        assert_eq!(b16("mul.hi.u16", &[B16(0xffff), B16(0xffff)]), 0xfffe);
        assert_eq!(b16("mul.hi.s16", &[B16(0x8000), B16(2)]), 0xffff);
        assert_eq!(b64("mul.hi.u64", &[B64(u64::MAX), B64(u64::MAX)]), u64::MAX - 1);
        assert_eq!(b64("mul.hi.s64", &[B64(u64::MAX), B64(2)]), u64::MAX);
        assert_eq!(b64("mul.wide.u32", &[B32(u32::MAX), Integer(4)]), 0x3_ffff_fffc);
        assert_eq!(b64("mul.wide.s32", &[B32(u32::MAX), Integer(4)]), u64::MAX - 3);
        assert_eq!(b32("mul.wide.u16", &[B16(0xffff), B16(0xffff)]), 0xfffe_0001);
        assert_eq!(b32("mul.wide.s16", &[B16(0xffff), B16(3)]), u32::MAX - 2);
        assert_eq!(b64("mad.wide.s32", &[B32(u32::MAX), B32(4), B64(10)]), 6);
        assert_eq!(b64("mad.wide.u32", &[B32(u32::MAX), B32(1), B64(1)]), 1 << 32);
        assert_eq!(b32("mad.hi.u32", &[B32(1 << 31), B32(4), B32(5)]), 7);
    }

    #[test]
    fn division_never_traps() {
        assert_eq!(b32("div.u32", &[B32(7), B32(2)]), 3);
        assert_eq!(b32("div.s32", &[B32(-7_i32 as u32), B32(2)]), -3_i32 as u32);
        assert_eq!(b32("rem.s32", &[B32(-7_i32 as u32), B32(2)]), -1_i32 as u32);
        assert_eq!(b32("div.u32", &[B32(7), B32(0)]), u32::MAX);
        assert_eq!(b32("rem.u32", &[B32(7), B32(0)]), 7);
        assert_eq!(b64("div.s64", &[B64(7), B64(0)]), u64::MAX);
        assert_eq!(b64("rem.s64", &[B64(7), B64(0)]), 7);
        assert_eq!(b32("div.s32", &[B32(1 << 31), B32(u32::MAX)]), 1 << 31);
        assert_eq!(b32("rem.s32", &[B32(1 << 31), B32(u32::MAX)]), 0);
        assert_eq!(b16("div.s16", &[B16(0x8000), B16(0xffff)]), 0x8000);
        assert_eq!(b16("rem.u16", &[B16(0xffff), B16(16)]), 15);
    }

    #[test]
    fn extremes_follow_the_sign_of_the_type() {
        assert_eq!(b32("min.s32", &[B32(u32::MAX), B32(1)]), u32::MAX);
        assert_eq!(b32("min.u32", &[B32(u32::MAX), B32(1)]), 1);
        assert_eq!(b32("max.s32", &[B32(u32::MAX), Integer(u64::MAX - 4)]), u32::MAX);
        assert_eq!(b32("max.relu.s32", &[B32(u32::MAX), B32(u32::MAX - 4)]), 0);
        assert_eq!(b32("max.relu.s32", &[B32(u32::MAX), B32(9)]), 9);
        assert_eq!(b32("min.relu.s32", &[B32(u32::MAX), B32(9)]), 0);
        assert_eq!(b16("max.s16", &[B16(0x8000), B16(0)]), 0);
        assert_eq!(b64("max.u64", &[B64(1 << 63), B64(0)]), 1 << 63);
        assert_eq!(b32("abs.s32", &[B32(-5_i32 as u32)]), 5);
        assert_eq!(b32("abs.s32", &[B32(1 << 31)]), 1 << 31);
        assert_eq!(b16("neg.s16", &[B16(1)]), 0xffff);
        assert_eq!(b64("neg.s64", &[B64(1)]), u64::MAX);
    }

    #[test]
    fn bits_are_counted_and_turned() {
        assert_eq!(b32("popc.b32", &[B32(0xf0f0_0001)]), 9);
        assert_eq!(b32("popc.b64", &[B64(u64::MAX)]), 64);
        assert_eq!(b32("clz.b32", &[B32(0)]), 32);
        assert_eq!(b32("clz.b64", &[B64(1)]), 63);
        assert_eq!(b32("brev.b32", &[B32(1)]), 1 << 31);
        assert_eq!(b64("brev.b64", &[B64(2)]), 1 << 62);
    }

    #[test]
    fn fields_are_extracted() {
        let bfe = |name: &str, a: u32, at: u64, n: u64| b32(name, &[B32(a), Integer(at), Integer(n)]);
        assert_eq!(bfe("bfe.u32", 0xdead_beef, 8, 8), 0xbe);
        assert_eq!(bfe("bfe.s32", 0xdead_beef, 8, 8), 0xffff_ffbe);
        assert_eq!(bfe("bfe.s32", 0xdead_beef, 4, 1), 0);
        assert_eq!(bfe("bfe.u32", 0xdead_beef, 0, 32), 0xdead_beef);
        assert_eq!(bfe("bfe.u32", 0xdead_beef, 28, 32), 0xd);
        assert_eq!(bfe("bfe.s32", 0xdead_beef, 28, 32), 0xffff_fffd);
        assert_eq!(bfe("bfe.u32", 0xdead_beef, 32, 4), 0);
        assert_eq!(bfe("bfe.s32", 0xdead_beef, 40, 4), u32::MAX);
        assert_eq!(bfe("bfe.s32", 0xdead_beef, 8, 0), 0);
        assert_eq!(bfe("bfe.u32", 0xdead_beef, 0x108, 0x104), 0xe);
        assert_eq!(b64("bfe.u64", &[B64(u64::MAX), Integer(60), Integer(255)]), 15);
        assert_eq!(b64("bfe.s64", &[B64(1 << 63), Integer(60), Integer(200)]), 8 | !15);
        assert_eq!(b64("bfe.u64", &[B64(u64::MAX), Integer(64), Integer(3)]), 0);
    }

    #[test]
    fn fields_are_inserted() {
        let bfi =
            |a: u32, b: u32, at: u64, n: u64| b32("bfi.b32", &[B32(a), B32(b), Integer(at), Integer(n)]);
        assert_eq!(bfi(0xff, 0, 4, 4), 0xf0);
        assert_eq!(bfi(0, u32::MAX, 4, 4), 0xffff_ff0f);
        assert_eq!(bfi(0x12, 0xffff_ffff, 28, 32), 0x2fff_ffff);
        assert_eq!(bfi(1, 7, 32, 4), 7);
        assert_eq!(bfi(1, 7, 0, 0), 7);
        assert_eq!(b64("bfi.b64", &[B64(0), B64(u64::MAX), Integer(32), Integer(32)]), 0xffff_ffff);
    }

    #[test]
    fn bytes_are_permuted() {
        let prmt = |selector: u64| b32("prmt.b32", &[B32(0x8322_1100), B32(0x7766_5544), Integer(selector)]);
        assert_eq!(prmt(0x3210), 0x8322_1100);
        assert_eq!(prmt(0x7654), 0x7766_5544);
        assert_eq!(prmt(0x5410), 0x5544_1100);
        assert_eq!(prmt(0xb3b0), 0xff83_ff00);
        assert_eq!(prmt(0x8888), 0);
    }
}

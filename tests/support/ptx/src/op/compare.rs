//! Comparison and selection (PTX ISA sections 9.7.6 and 9.7.7), and logic on predicates.

use crate::isa::arithmetic::flush;
use crate::isa::round;
use crate::machine::Run;
use crate::machine::decode::{DecodeError, Decoder, Form, Kind};
use crate::op::lanes::{self, Lane, each, each_bit, has, plain_predicate, run};
use crate::registers::Mask;
use crate::syntax::{Instruction, Operand};

const fn form(section: &'static str, syntax: &'static str, decode: super::Decode) -> Form {
    lanes::form(section, Kind::Integer, syntax, decode)
}

const fn float(section: &'static str, syntax: &'static str, decode: super::Decode) -> Form {
    lanes::form(section, Kind::Float, syntax, decode)
}

/// The family's forms.
pub(super) const FORMS: &[Form] = &[
    form("9.7.6.2", "setp.{eq,ne}.{and,or,xor,}.b16", |d, i| setp(d, i, |a: u16| a)),
    form("9.7.6.2", "setp.{eq,ne}.{and,or,xor,}.b32", |d, i| setp(d, i, |a: u32| a)),
    form("9.7.6.2", "setp.{eq,ne}.{and,or,xor,}.b64", |d, i| setp(d, i, |a: u64| a)),
    form("9.7.6.2", "setp.{eq,ne,lt,le,gt,ge,lo,ls,hi,hs}.{and,or,xor,}.u16", |d, i| setp(d, i, |a: u16| a)),
    form("9.7.6.2", "setp.{eq,ne,lt,le,gt,ge,lo,ls,hi,hs}.{and,or,xor,}.u32", |d, i| setp(d, i, |a: u32| a)),
    form("9.7.6.2", "setp.{eq,ne,lt,le,gt,ge,lo,ls,hi,hs}.{and,or,xor,}.u64", |d, i| setp(d, i, |a: u64| a)),
    form("9.7.6.2", "setp.{eq,ne,lt,le,gt,ge}.{and,or,xor,}.s16", |d, i| setp(d, i, |a: i16| a)),
    form("9.7.6.2", "setp.{eq,ne,lt,le,gt,ge}.{and,or,xor,}.s32", |d, i| setp(d, i, |a: i32| a)),
    form("9.7.6.2", "setp.{eq,ne,lt,le,gt,ge}.{and,or,xor,}.s64", |d, i| setp(d, i, |a: i64| a)),
    float(
        "9.7.6.2",
        "setp.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}.{and,or,xor,}.{ftz,}.f32",
        |d, i| if has(i, "ftz") { setp(d, i, flush) } else { setp(d, i, |a: f32| a) },
    ),
    float("9.7.6.2", "setp.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}.{and,or,xor,}.f64", |d, i| {
        setp(d, i, |a: f64| a)
    }),
    float(
        "9.7.7.2",
        "setp.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}.{and,or,xor,}.bf16",
        |d, i| setp(d, i, round::bf16_to_f32),
    ),
    form("9.7.6.3", "selp.{b16,u16,s16}", selp::<u16>),
    form("9.7.6.3", "selp.{b32,u32,s32}", selp::<u32>),
    form("9.7.6.3", "selp.{b64,u64,s64}", selp::<u64>),
    form("9.7.6.3", "selp.f32", selp::<f32>),
    form("9.7.6.3", "selp.f64", selp::<f64>),
    form("9.7.8.1", "and.pred", |d, i| predicates2(d, i, |a, b| a & b)),
    form("9.7.8.2", "or.pred", |d, i| predicates2(d, i, |a, b| a | b)),
    form("9.7.8.3", "xor.pred", |d, i| predicates2(d, i, |a, b| a ^ b)),
    form("9.7.8.4", "not.pred", |d, i| predicates1(d, i, |a| !a)),
    form("9.7.9.3", "mov.pred", |d, i| predicates1(d, i, |a| a)),
];

/// How a comparison is joined with a third predicate.
#[derive(Clone, Copy)]
enum Join {
    And,
    Or,
    Xor,
}

impl Join {
    fn of(i: &Instruction) -> Option<Self> {
        match i.opcode.split('.').nth(2) {
            Some("and") => Some(Self::And),
            Some("or") => Some(Self::Or),
            Some("xor") => Some(Self::Xor),
            _ => None,
        }
    }

    fn apply(self, a: Mask, b: Mask) -> Mask {
        match self {
            Self::And => a & b,
            Self::Or => a | b,
            Self::Xor => a ^ b,
        }
    }
}

/// `setp.op.type p|q, a, b` and `setp.op.join.type p|q, a, b, c`; `prepare` is what operands go through
/// first.
///
/// A comparison that ends in `u` holds for NaN operands too; the others, `ne` included, do not.
fn setp<T: Lane, N: Copy + PartialOrd>(
    d: &mut Decoder<'_>,
    i: &Instruction,
    prepare: impl Fn(T) -> N + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    // Arms rather than a table of functions, so that each comparison's loop is compiled for itself.
    match i.opcode.split('.').nth(1).unwrap_or_default() {
        "eq" => setp_by(d, i, prepare, |a, b| a == b),
        "ne" => setp_by(d, i, prepare, |a, b| a != b && !unordered(a, b)),
        "lt" | "lo" => setp_by(d, i, prepare, |a, b| a < b),
        "le" | "ls" => setp_by(d, i, prepare, |a, b| a <= b),
        "gt" | "hi" => setp_by(d, i, prepare, |a, b| a > b),
        "ge" | "hs" => setp_by(d, i, prepare, |a, b| a >= b),
        "equ" => setp_by(d, i, prepare, |a, b| a == b || unordered(a, b)),
        "neu" => setp_by(d, i, prepare, |a, b| a != b),
        "ltu" => setp_by(d, i, prepare, |a, b| a < b || unordered(a, b)),
        "leu" => setp_by(d, i, prepare, |a, b| a <= b || unordered(a, b)),
        "gtu" => setp_by(d, i, prepare, |a, b| a > b || unordered(a, b)),
        "geu" => setp_by(d, i, prepare, |a, b| a >= b || unordered(a, b)),
        "num" => setp_by(d, i, prepare, |a, b| !unordered(a, b)),
        "nan" => setp_by(d, i, prepare, |a, b| unordered(a, b)),
        other => Err(d.error(format!("no comparison `{other}`"))),
    }
}

fn setp_by<T: Lane, N>(
    d: &mut Decoder<'_>,
    i: &Instruction,
    prepare: impl Fn(T) -> N + Send + Sync + 'static,
    compare: impl Fn(N, N) -> bool + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    let join = Join::of(i);
    d.expect_operands(i, if join.is_some() { 4 } else { 3 })?;
    let (p, q) = two_predicates(d, &i.operands[0])?;
    let (a, b) = (T::source(d, &i.operands[1])?, T::source(d, &i.operands[2])?);
    let join = join.map(|join| d.source_predicate(&i.operands[3]).map(|c| (join, c))).transpose()?;
    Ok(run(move |registers, mask| {
        let (a, b) = (T::get(registers, a, mask)?, T::get(registers, b, mask)?);
        let bits = each_bit(|lane| compare(prepare(a[lane]), prepare(b[lane])));
        let (for_p, for_q) = match join {
            None => (bits, !bits),
            Some((join, c)) => {
                let c = registers.get_predicate(c, mask)?;
                (join.apply(bits, c), join.apply(!bits, c))
            }
        };
        for (slot, bits) in [(p, for_p), (q, for_q)] {
            if let Some(slot) = slot {
                registers.set_predicate(slot, mask, bits);
            }
        }
        Ok(())
    }))
}

/// Whether an operand is NaN.
fn unordered<T: PartialOrd>(a: T, b: T) -> bool {
    a.partial_cmp(&b).is_none()
}

/// `p`, `p|q`, `_|q` or `p|_`.
fn two_predicates(d: &Decoder<'_>, operand: &Operand) -> Result<(Option<u32>, Option<u32>), DecodeError> {
    let one = |operand: &Operand| match operand {
        Operand::Sink => Ok(None),
        other => d.to_predicate(other).map(Some),
    };
    match operand {
        Operand::Pair(p, q) => Ok((one(p)?, one(q)?)),
        single => Ok((one(single)?, None)),
    }
}

/// `selp d, a, b, c`
fn selp<T: Lane>(d: &mut Decoder<'_>, i: &Instruction) -> Result<Run, DecodeError> {
    d.expect_operands(i, 4)?;
    let to = T::result(d, &i.operands[0])?;
    let (a, b) = (T::source(d, &i.operands[1])?, T::source(d, &i.operands[2])?);
    let c = plain_predicate(d, &i.operands[3])?;
    Ok(run(move |registers, mask| {
        let (a, b) = (T::get(registers, a, mask)?, T::get(registers, b, mask)?);
        let c = registers.get_predicate(c, mask)?;
        T::set(registers, to, mask, &each(|lane| if c & (1 << lane) != 0 { a[lane] } else { b[lane] }));
        Ok(())
    }))
}

fn predicates1(
    d: &Decoder<'_>,
    i: &Instruction,
    f: impl Fn(Mask) -> Mask + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    d.expect_operands(i, 2)?;
    let (to, a) = (d.to_predicate(&i.operands[0])?, plain_predicate(d, &i.operands[1])?);
    Ok(run(move |registers, mask| {
        let a = registers.get_predicate(a, mask)?;
        registers.set_predicate(to, mask, f(a));
        Ok(())
    }))
}

fn predicates2(
    d: &Decoder<'_>,
    i: &Instruction,
    f: impl Fn(Mask, Mask) -> Mask + Send + Sync + 'static,
) -> Result<Run, DecodeError> {
    d.expect_operands(i, 3)?;
    let to = d.to_predicate(&i.operands[0])?;
    let (a, b) = (plain_predicate(d, &i.operands[1])?, plain_predicate(d, &i.operands[2])?);
    Ok(run(move |registers, mask| {
        let (a, b) = (registers.get_predicate(a, mask)?, registers.get_predicate(b, mask)?);
        registers.set_predicate(to, mask, f(a, b));
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use crate::op::trial::{Value::*, b16, b32, b64, predicate, predicates, refused};

    #[test]
    fn integers_compare_by_the_sign_of_the_type() {
        let minus_one = B32(u32::MAX);
        assert!(predicate("setp.lt.s32", &[minus_one, Integer(0)]));
        assert!(!predicate("setp.lt.u32", &[minus_one, Integer(0)]));
        assert!(predicate("setp.hi.u32", &[minus_one, Integer(0)]));
        assert!(predicate("setp.ge.s32", &[B32(5), Integer(5)]));
        assert!(predicate("setp.ne.b16", &[B16(1), Integer(0)]));
        assert!(predicate("setp.eq.b64", &[B64(1 << 40), B64(1 << 40)]));
        assert!(predicate("setp.le.s16", &[B16(0x8000), B16(0)]));
        assert!(!predicate("setp.ls.u16", &[B16(0x8000), B16(0)]));
        assert!(predicate("setp.gt.u64", &[B64(1 << 63), B64(0)]));
        assert!(predicate("setp.lt.s64", &[B64(1 << 63), B64(0)]));
    }

    #[test]
    fn a_comparison_with_nan_is_false_unless_it_ends_in_u() {
        let (nan, one, two) = (Float32(f32::NAN), Float32(1.0), Float32(2.0));
        for name in ["eq", "ne", "lt", "le", "gt", "ge", "num"] {
            assert!(!predicate(&format!("setp.{name}.f32"), &[nan, one]), "{name}");
        }
        for name in ["equ", "neu", "ltu", "leu", "gtu", "geu", "nan"] {
            assert!(predicate(&format!("setp.{name}.f32"), &[one, nan]), "{name}");
        }
        for name in ["ne", "lt", "le", "neu", "ltu", "leu", "num"] {
            assert!(predicate(&format!("setp.{name}.f32"), &[one, two]), "{name}");
        }
        for name in ["eq", "gt", "ge", "equ", "gtu", "geu", "nan"] {
            assert!(!predicate(&format!("setp.{name}.f32"), &[one, two]), "{name}");
        }
        assert!(predicate("setp.eq.f32", &[Float32(0.0), Float32(-0.0)]));
        assert!(!predicate("setp.eq.f32", &[B32(1), Float32(0.0)]));
        assert!(predicate("setp.eq.ftz.f32", &[B32(1), Float32(0.0)]));
        assert!(predicate("setp.ltu.f64", &[Float64(f64::NAN), Float64(0.0)]));
    }

    #[test]
    fn a_third_predicate_joins_both_results() {
        let of = |name: &str, c: bool| predicates(name, &[B32(1), B32(2), Predicate(c)]);
        assert_eq!(of("setp.lt.and.s32", true), (true, false));
        assert_eq!(of("setp.lt.and.s32", false), (false, false));
        assert_eq!(of("setp.lt.or.s32", true), (true, true));
        assert_eq!(of("setp.gt.or.s32", false), (false, true));
        assert_eq!(of("setp.lt.xor.s32", true), (false, true));
        assert_eq!(predicates("setp.lt.s32", &[B32(1), B32(2)]), (true, false));
    }

    #[test]
    fn selection_moves_bits() {
        assert_eq!(b32("selp.b32", &[B32(7), Integer(9), Predicate(true)]), 7);
        assert_eq!(b32("selp.b32", &[B32(7), Integer(u64::MAX), Predicate(false)]), u32::MAX);
        assert_eq!(b16("selp.b16", &[Integer(1), Integer(0), Predicate(true)]), 1);
        assert_eq!(b64("selp.b64", &[B64(1), B64(2), Predicate(false)]), 2);
        assert_eq!(b32("selp.f32", &[B32(0xff80_0001), Float32(0.0), Predicate(true)]), 0xff80_0001);
    }

    #[test]
    fn predicates_have_logic() {
        let of = |name: &str, a: bool, b: bool| predicate(name, &[Predicate(a), Predicate(b)]);
        assert!(of("and.pred", true, true) && !of("and.pred", true, false));
        assert!(of("or.pred", true, false) && !of("or.pred", false, false));
        assert!(of("xor.pred", true, false) && !of("xor.pred", true, true));
        assert!(predicate("not.pred", &[Predicate(false)]));
        assert!(predicate("mov.pred", &[Integer(u64::MAX)]));
        assert!(!predicate("mov.pred", &[Integer(0)]));
    }

    #[test]
    fn predicates_and_words_are_not_the_same() {
        assert!(refused("and.pred", &[Predicate(true), B32(1)]).contains("`and.pred`"));
        assert!(refused("selp.b32", &[B32(1), B32(1), B32(1)]).contains("`selp.b32`"));
        assert!(refused("setp.eq.b16", &[B16(1), B32(1)]).contains("`setp.eq.b16`"));
    }
}

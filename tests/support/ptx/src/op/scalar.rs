//! Stopgap.
use super::Run;
use crate::decode::{DecodeError, Decoder, Form, Kind};
use crate::registers::*;
use crate::syntax::{Instruction, Operand};
use half::bf16;

type R = Result<Run, DecodeError>;
fn bin32(d: &mut Decoder<'_>, i: &Instruction, f: impl Fn(u32, u32) -> u32 + Send + Sync + 'static) -> R {
    let (t, a, b) = (d.to32(&i.operands[0])?, d.source32(&i.operands[1])?, d.source32(&i.operands[2])?);
    Ok(Run::Registers(Box::new(move |r, m| {
        let (a, b) = (r.get32(a, m)?, r.get32(b, m)?);
        r.set32(t, m, &std::array::from_fn(|l| f(a[l], b[l])));
        Ok(())
    })))
}
fn bin64(d: &mut Decoder<'_>, i: &Instruction, f: impl Fn(u64, u64) -> u64 + Send + Sync + 'static) -> R {
    let (t, a, b) = (d.to64(&i.operands[0])?, d.source64(&i.operands[1])?, d.source64(&i.operands[2])?);
    Ok(Run::Registers(Box::new(move |r, m| {
        let (a, b) = (r.get64(a, m)?, r.get64(b, m)?);
        r.set64(t, m, &std::array::from_fn(|l| f(a[l], b[l])));
        Ok(())
    })))
}
fn un32(d: &mut Decoder<'_>, i: &Instruction, f: impl Fn(u32) -> u32 + Send + Sync + 'static) -> R {
    let (t, a) = (d.to32(&i.operands[0])?, d.source32(&i.operands[1])?);
    Ok(Run::Registers(Box::new(move |r, m| {
        let a = r.get32(a, m)?;
        r.set32(t, m, &a.map(&f));
        Ok(())
    })))
}
fn tri32(d: &mut Decoder<'_>, i: &Instruction, f: impl Fn(u32, u32, u32) -> u32 + Send + Sync + 'static) -> R {
    let (t, a, b, c) = (d.to32(&i.operands[0])?, d.source32(&i.operands[1])?, d.source32(&i.operands[2])?, d.source32(&i.operands[3])?);
    Ok(Run::Registers(Box::new(move |r, m| {
        let (a, b, c) = (r.get32(a, m)?, r.get32(b, m)?, r.get32(c, m)?);
        r.set32(t, m, &std::array::from_fn(|l| f(a[l], b[l], c[l])));
        Ok(())
    })))
}
fn f(v: u32) -> f32 { f32::from_bits(v) }
fn any(d: &mut Decoder<'_>, i: &Instruction) -> R {
    let p: Vec<&str> = i.opcode.split('.').collect();
    let o = &i.operands;
    let last = *p.last().unwrap_or(&"");
    match (p[0], last) {
        ("add", "f32") => bin32(d, i, |a, b| (f(a) + f(b)).to_bits()),
        ("sub", "f32") => bin32(d, i, |a, b| (f(a) - f(b)).to_bits()),
        ("mul", "f32") => bin32(d, i, |a, b| (f(a) * f(b)).to_bits()),
        ("div", "f32") => bin32(d, i, |a, b| (f(a) / f(b)).to_bits()),
        ("max", "f32") => bin32(d, i, |a, b| f(a).max(f(b)).to_bits()),
        ("fma", "f32") => tri32(d, i, |a, b, c| f(a).mul_add(f(b), f(c)).to_bits()),
        ("ex2", _) => un32(d, i, |a| (f64::from(f(a)).exp2() as f32).to_bits()),
        ("rcp", _) => un32(d, i, |a| (1.0 / f(a)).to_bits()),
        ("sqrt", _) => un32(d, i, |a| f(a).sqrt().to_bits()),
        ("add", "s32") => bin32(d, i, u32::wrapping_add),
        ("sub", "s32") => bin32(d, i, u32::wrapping_sub),
        ("mul", "s32") if p[1] == "lo" => bin32(d, i, u32::wrapping_mul),
        ("mul", "u32") if p[1] == "hi" => bin32(d, i, |a, b| ((u64::from(a) * u64::from(b)) >> 32) as u32),
        ("mad", "s32") => tri32(d, i, |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
        ("min", "s32") => bin32(d, i, |a, b| (a as i32).min(b as i32) as u32),
        ("min", "u32") => bin32(d, i, u32::min),
        ("max", "s32") if p[1] == "relu" => bin32(d, i, |a, b| (a as i32).max(b as i32).max(0) as u32),
        ("max", "s32") => bin32(d, i, |a, b| (a as i32).max(b as i32) as u32),
        ("div", "u32") => bin32(d, i, |a, b| a.checked_div(b).unwrap_or(u32::MAX)),
        ("and", "b32") => bin32(d, i, |a, b| a & b),
        ("or", "b32") => bin32(d, i, |a, b| a | b),
        ("xor", "b32") => bin32(d, i, |a, b| a ^ b),
        ("not", "b32") => un32(d, i, |a| !a),
        ("shl", "b32") => bin32(d, i, |a, b| if b > 31 { 0 } else { a << b }),
        ("shr", "u32") => bin32(d, i, |a, b| if b > 31 { 0 } else { a >> b }),
        ("bfe", "u32") => tri32(d, i, |a, b, c| if c == 0 { 0 } else { (a >> b) & (((1_u64 << c) - 1) as u32) }),
        ("popc", _) => un32(d, i, u32::count_ones),
        ("add", "s64") => bin64(d, i, u64::wrapping_add),
        ("mul", "s64") => bin64(d, i, u64::wrapping_mul),
        ("or", "b64") => bin64(d, i, |a, b| a | b),
        ("mad", "s64") => {
            let (t, a, b, c) = (d.to64(&o[0])?, d.source64(&o[1])?, d.source64(&o[2])?, d.source64(&o[3])?);
            Ok(Run::Registers(Box::new(move |r, m| {
                let (a, b, c) = (r.get64(a, m)?, r.get64(b, m)?, r.get64(c, m)?);
                r.set64(t, m, &std::array::from_fn(|l| a[l].wrapping_mul(b[l]).wrapping_add(c[l])));
                Ok(())
            })))
        }
        ("shl" | "shr", _) => {
            let left = p[0] == "shl";
            let (t, a, b) = (d.to64(&o[0])?, d.source64(&o[1])?, d.source32(&o[2])?);
            Ok(Run::Registers(Box::new(move |r, m| {
                let (a, b) = (r.get64(a, m)?, r.get32(b, m)?);
                r.set64(t, m, &std::array::from_fn(|l| if b[l] > 63 { 0 } else if left { a[l] << b[l] } else { a[l] >> b[l] }));
                Ok(())
            })))
        }
        ("mul", ty) => {
            let signed = ty == "s32";
            let (t, a, b) = (d.to64(&o[0])?, d.source32(&o[1])?, d.source32(&o[2])?);
            Ok(Run::Registers(Box::new(move |r, m| {
                let (a, b) = (r.get32(a, m)?, r.get32(b, m)?);
                r.set64(t, m, &std::array::from_fn(|l| if signed { (i64::from(a[l] as i32) * i64::from(b[l] as i32)) as u64 } else { u64::from(a[l]) * u64::from(b[l]) }));
                Ok(())
            })))
        }
        ("cvt", "f32") if p[2] == "bf16x2" => bin32(d, i, |a, b| u32::from(bf16::from_f32(f(a)).to_bits()) << 16 | u32::from(bf16::from_f32(f(b)).to_bits())),
        ("cvt", "f32") if p[2] == "bf16" => un32(d, i, |a| u32::from(bf16::from_f32(f(a)).to_bits())),
        ("cvt", "f32") => un32(d, i, |a| (f(a) as i32) as u32),
        ("cvt", "bf16") => un32(d, i, |a| a << 16),
        ("cvt", "u32") if p[1] == "u16" => un32(d, i, |a| a & 0xFFFF),
        ("neg", "s32") => un32(d, i, u32::wrapping_neg),
        ("cvt", "u64") => {
            let (t, a) = (d.to32(&o[0])?, d.source64(&o[1])?);
            Ok(Run::Registers(Box::new(move |r, m| {
                let a = r.get64(a, m)?;
                r.set32(t, m, &a.map(|a| a as u32));
                Ok(())
            })))
        }
        ("cvt", from) => {
            let signed = from == "s32";
            let (t, a) = (d.to64(&o[0])?, d.source32(&o[1])?);
            Ok(Run::Registers(Box::new(move |r, m| {
                let a = r.get32(a, m)?;
                r.set64(t, m, &a.map(|a| if signed { i64::from(a as i32) as u64 } else { u64::from(a) }));
                Ok(())
            })))
        }
        ("mov", "pred") | ("not", "pred") => {
            let n = p[0] == "not";
            let (t, a) = (d.to_predicate(&o[0])?, d.source_predicate(&o[1])?);
            Ok(Run::Registers(Box::new(move |r, m| { let a = r.get_predicate(a, m)?; r.set_predicate(t, m, if n { !a } else { a }); Ok(()) })))
        }
        ("and" | "or", "pred") => {
            let n = p[0] == "and";
            let (t, a, b) = (d.to_predicate(&o[0])?, d.source_predicate(&o[1])?, d.source_predicate(&o[2])?);
            Ok(Run::Registers(Box::new(move |r, m| { let (a, b) = (r.get_predicate(a, m)?, r.get_predicate(b, m)?); r.set_predicate(t, m, if n { a & b } else { a | b }); Ok(()) })))
        }
        ("mov" | "cvta", "b64" | "u64") => {
            let (t, a) = (d.to64(&o[0])?, d.source64(&o[1])?);
            Ok(Run::Registers(Box::new(move |r, m| { let a = r.get64(a, m)?; r.set64(t, m, &a); Ok(()) })))
        }
        ("mov", _) => un32(d, i, |a| a),
        ("selp", "b64") => {
            let (t, a, b, c) = (d.to64(&o[0])?, d.source64(&o[1])?, d.source64(&o[2])?, d.source_predicate(&o[3])?);
            Ok(Run::Registers(Box::new(move |r, m| { let (a, b, c) = (r.get64(a, m)?, r.get64(b, m)?, r.get_predicate(c, m)?); r.set64(t, m, &std::array::from_fn(|l| if c >> l & 1 == 1 { a[l] } else { b[l] })); Ok(()) })))
        }
        ("selp", _) => {
            let (t, a, b, c) = (d.to32(&o[0])?, d.source32(&o[1])?, d.source32(&o[2])?, d.source_predicate(&o[3])?);
            Ok(Run::Registers(Box::new(move |r, m| { let (a, b, c) = (r.get32(a, m)?, r.get32(b, m)?, r.get_predicate(c, m)?); r.set32(t, m, &std::array::from_fn(|l| if c >> l & 1 == 1 { a[l] } else { b[l] })); Ok(()) })))
        }
        ("setp", ty) => {
            let cmp: fn(std::cmp::Ordering) -> bool = match p[1] {
                "lt" => std::cmp::Ordering::is_lt, "le" => std::cmp::Ordering::is_le, "gt" => std::cmp::Ordering::is_gt,
                "ge" => std::cmp::Ordering::is_ge, "eq" => std::cmp::Ordering::is_eq, "ne" => std::cmp::Ordering::is_ne,
                _ => return Err(d.error("no")),
            };
            let t = d.to_predicate(&o[0])?;
            if ty == "u64" {
                let (a, b) = (d.source64(&o[1])?, d.source64(&o[2])?);
                return Ok(Run::Registers(Box::new(move |r, m| { let (a, b) = (r.get64(a, m)?, r.get64(b, m)?); r.set_predicate(t, m, (0..32).fold(0, |x, l| x | u32::from(cmp(a[l].cmp(&b[l]))) << l)); Ok(()) })));
            }
            let (a, b) = (d.source32(&o[1])?, d.source32(&o[2])?);
            let k = match ty { "s32" => 0, "f32" => 1, _ => 2 };
            Ok(Run::Registers(Box::new(move |r, m| {
                let (a, b) = (r.get32(a, m)?, r.get32(b, m)?);
                r.set_predicate(t, m, (0..32).fold(0, |x, l| {
                    let y = match k { 0 => Some((a[l] as i32).cmp(&(b[l] as i32))), 1 => f(a[l]).partial_cmp(&f(b[l])), _ => Some(a[l].cmp(&b[l])) };
                    x | u32::from(y.is_some_and(cmp)) << l
                }));
                Ok(())
            })))
        }
        ("shfl", _) => {
            let (t, a, b) = (d.to32(&o[0])?, d.source32(&o[1])?, d.source32(&o[2])?);
            Ok(Run::Registers(Box::new(move |r, m| { let (a, b) = (r.get32(a, m)?, r.get32(b, m)?); r.set32(t, m, &std::array::from_fn(|l| a[(l ^ b[l] as usize) & 31])); Ok(()) })))
        }
        ("vote", _) => {
            let (t, a) = (d.to32(&o[0])?, d.source_predicate(&o[1])?);
            Ok(Run::Registers(Box::new(move |r, m| { let a = r.get_predicate(a, m)? & m; r.set32(t, m, &[a; 32]); Ok(()) })))
        }
        _ => Err(d.error(format!("stopgap {} {:?}", i.opcode, Operand::Sink))),
    }
}
pub(crate) const FORMS: &[Form] = &[Form {
    syntax: "{add.rn.f32,sub.rn.f32,mul.rn.f32,div.rn.f32,max.f32,fma.rn.f32,ex2.approx.ftz.f32,rcp.approx.ftz.f32,rcp.rn.f32,sqrt.rn.f32,add.s32,sub.s32,mul.lo.s32,mul.hi.u32,mad.lo.s32,min.s32,min.u32,max.relu.s32,max.s32,div.u32,and.b32,or.b32,xor.b32,not.b32,shl.b32,shr.u32,bfe.u32,popc.b32,add.s64,mul.lo.s64,or.b64,mad.lo.s64,shl.b64,shr.u64,mul.wide.u32,mul.wide.s32,cvt.rn.bf16x2.f32,cvt.rzi.s32.f32,cvt.u32.u64,cvt.u64.u32,cvt.s64.s32,mov.pred,not.pred,and.pred,or.pred,mov.b64,mov.u32,mov.b32,cvta.param.u64,selp.f32,selp.b32,selp.b16,selp.b64,setp.lt.s32,setp.lt.u32,setp.lt.f32,setp.gt.f32,setp.ge.s32,setp.gt.s32,setp.ne.b32,setp.gt.u32,setp.eq.b32,setp.ne.b16,setp.ge.f32,setp.lt.u64,setp.ge.u32,setp.le.u32,neg.s32,cvt.f32.bf16,cvt.rn.bf16.f32,cvt.u16.u32,shfl.sync.bfly.b32,vote.sync.ballot.b32}",
    section: "0", kind: Kind::Integer, decode: any }];

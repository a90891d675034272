//! PTX text to instructions.

use std::collections::BTreeMap;

use super::instruction::{Address, Class, Comparison, Function, Instruction, Op, Reg, Source, Special};

/// A parsed PTX module.
#[derive(Debug)]
pub(crate) struct Module {
    entries: BTreeMap<String, Kernel>,
}

#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) code: Vec<Instruction>,
    pub(crate) n_regs: usize,
}

impl Module {
    /// Reads a module.
    ///
    /// # Errors
    /// The instruction that the machine does not know.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut entries = BTreeMap::new();
        for part in text.split(".visible .entry ").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let body = part.split_once("\n{").ok_or("an entry without a body")?.1;
            let body = body.split("\n}").next().unwrap_or("");
            entries.insert(
                name.clone(),
                Parser::default().kernel(body).map_err(|error| format!("{name}: {error}"))?,
            );
        }
        Ok(Self { entries })
    }

    pub(crate) fn entry(&self, name: &str) -> Result<&Kernel, String> {
        self.entries.get(name).ok_or_else(|| format!("no entry `{name}`"))
    }
}

#[derive(Default)]
struct Parser {
    regs: BTreeMap<String, Reg>,
}

impl Parser {
    fn kernel(mut self, body: &str) -> Result<Kernel, String> {
        let mut labels = BTreeMap::new();
        let mut statements: Vec<String> = Vec::new();
        let mut open = String::new();
        for line in body.lines() {
            let line = line.split("//").next().unwrap_or("").trim();
            if line.starts_with('.') || line.is_empty() {
                continue;
            }
            if let Some(label) = line.strip_suffix(':') {
                labels.insert(label.to_owned(), statements.len());
                continue;
            }
            open.push_str(line);
            open.push(' ');
            if line.ends_with(';') {
                statements.push(std::mem::take(&mut open).trim_end_matches([' ', ';']).to_owned());
            }
        }
        let code: Result<Vec<Instruction>, String> =
            statements.iter().map(|statement| self.instruction(statement, &labels)).collect();
        Ok(Kernel { code: code?, n_regs: self.regs.len() })
    }

    fn instruction(&mut self, text: &str, labels: &BTreeMap<String, usize>) -> Result<Instruction, String> {
        let mut rest = text;
        let mut guard = None;
        if let Some(guarded) = text.strip_prefix('@') {
            let (name, tail) = guarded.split_once(char::is_whitespace).ok_or("a guard alone")?;
            guard = Some((self.reg(name.trim_start_matches('!'))?, !name.starts_with('!')));
            rest = tail.trim_start();
        }
        let (name, operands) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let operands = split(operands);
        let op = self.op(name, &operands, labels).map_err(|error| format!("`{text}`: {error}"))?;
        Ok(Instruction { guard, op, text: text.to_owned() })
    }

    fn op(
        &mut self,
        name: &str,
        operands: &[String],
        labels: &BTreeMap<String, usize>,
    ) -> Result<Op, String> {
        let parts: Vec<&str> = name.split('.').collect();
        let get = |idx: usize| operands.get(idx).map(String::as_str).ok_or("too few operands");
        match parts[0] {
            "bra" => Ok(Op::Branch(*labels.get(get(0)?).ok_or("an unknown label")?)),
            "ret" => Ok(Op::Return),
            "bar" => Ok(Op::Barrier),
            "ld" if parts[1] == "param" => {
                let index = get(1)?.trim_matches(['[', ']']).rsplit('_').next().and_then(|n| n.parse().ok());
                let from = vec![Source::Param(index.ok_or("a parameter without a number")?)];
                Ok(Op::Compute { function: Function::Move, to: self.reg(get(0)?)?, from })
            }
            "ld" | "st" => self.access(&parts, get(0)?, get(1)?),
            "cp" => self.copy(&parts, operands),
            "shfl" => Ok(Op::Shuffle {
                to: self.reg(get(0)?)?,
                value: self.source(get(1)?)?,
                lanes: self.source(get(2)?)?,
            }),
            "vote" => Ok(Op::Ballot { to: self.reg(get(0)?)?, value: self.source(get(1)?)? }),
            "ldmatrix" => Ok(Op::LoadMatrix {
                transposed: parts.contains(&"trans"),
                to: self.regs(get(0)?)?,
                at: self.address(get(1)?)?,
            }),
            "mma" => Ok(Op::Mma {
                to: self.regs(get(0)?)?,
                a: self.sources(get(1)?)?,
                b: self.sources(get(2)?)?,
                c: self.sources(get(3)?)?,
            }),
            _ => {
                let function = function(&parts)?;
                let to = self.reg(get(0)?)?;
                let from: Result<_, _> = operands[1..].iter().map(|operand| self.source(operand)).collect();
                Ok(Op::Compute { function, to, from: from? })
            }
        }
    }

    fn access(&mut self, parts: &[&str], first: &str, second: &str) -> Result<Op, String> {
        let shared = parts.contains(&"shared");
        let bits: u32 = parts.last().and_then(|ty| ty[1..].parse().ok()).ok_or("an unknown type")?;
        if parts[0] == "ld" {
            return Ok(Op::Load {
                shared,
                bytes: bits / 8,
                to: self.regs(first)?,
                at: self.address(second)?,
            });
        }
        Ok(Op::Store { shared, bytes: bits / 8, from: self.sources(second)?, at: self.address(first)? })
    }

    fn copy(&mut self, parts: &[&str], operands: &[String]) -> Result<Op, String> {
        let number =
            |idx: usize| operands.get(idx).and_then(|n| n.parse::<u32>().ok()).ok_or("a number is missing");
        match parts[2] {
            "commit_group" => Ok(Op::CopyCommit),
            "wait_group" => Ok(Op::CopyWait(number(0)?)),
            "cg" | "ca" => Ok(Op::CopyAsync {
                to: self.address(&operands[0])?,
                from: self.address(&operands[1])?,
                bytes: number(2)?,
                present: match operands.get(3) {
                    Some(size) => self.source(size)?,
                    None => Source::Const(u64::from(number(2)?)),
                },
            }),
            other => Err(format!("unknown copy `{other}`")),
        }
    }

    fn reg(&mut self, name: &str) -> Result<Reg, String> {
        if !name.starts_with('%') {
            return Err(format!("`{name}` is no register"));
        }
        let next = self.regs.len();
        Ok(*self.regs.entry(name.to_owned()).or_insert(next))
    }

    fn regs(&mut self, list: &str) -> Result<Vec<Reg>, String> {
        split(list.trim_matches(['{', '}'])).iter().map(|name| self.reg(name)).collect()
    }

    fn sources(&mut self, list: &str) -> Result<Vec<Source>, String> {
        split(list.trim_matches(['{', '}'])).iter().map(|name| self.source(name)).collect()
    }

    fn source(&mut self, text: &str) -> Result<Source, String> {
        let special = match text {
            "%tid.x" => Some(Special::ThreadX),
            "%ctaid.x" => Some(Special::BlockX),
            "%ctaid.y" => Some(Special::BlockY),
            "%nctaid.x" => Some(Special::GridX),
            _ => None,
        };
        if let Some(special) = special {
            return Ok(Source::Special(special));
        }
        if text.starts_with('%') {
            return self.reg(text).map(Source::Reg);
        }
        if text == "shared_memory" {
            return Ok(Source::Shared);
        }
        if let Some(hex) = text.strip_prefix("0f").or(text.strip_prefix("0d")).or(text.strip_prefix("0x")) {
            return u64::from_str_radix(hex, 16).map(Source::Const).map_err(|error| error.to_string());
        }
        text.parse::<i64>()
            .map(|value| Source::Const(value as u64))
            .or_else(|_| text.parse::<u64>().map(Source::Const))
            .map_err(|_| format!("unknown operand `{text}`"))
    }

    fn address(&mut self, text: &str) -> Result<Address, String> {
        let inner = text.trim_matches(['[', ']']);
        let (base, offset) = inner.split_once('+').unwrap_or((inner, "0"));
        let offset = offset.trim().parse().map_err(|_| format!("unknown address `{text}`"))?;
        Ok(Address { base: self.source(base.trim())?, offset })
    }
}

/// Operands, at commas outside of braces and brackets.
fn split(text: &str) -> Vec<String> {
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for c in text.chars() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 {
            parts.push(String::new());
        } else if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn function(parts: &[&str]) -> Result<Function, String> {
    let ty = parts.last().copied().unwrap_or("");
    let bits: u32 = ty.get(1..).and_then(|bits| bits.parse().ok()).unwrap_or(1);
    let signed = ty.starts_with('s');
    let second = parts.get(1).copied().unwrap_or("");
    Ok(match (parts[0], ty) {
        ("mov", _) => Function::Move,
        ("add", "f32") => Function::AddF,
        ("sub", "f32") => Function::SubF,
        ("mul", "f32") => Function::MulF,
        ("mul", "f64") => Function::MulD,
        ("fma", "f32") => Function::Fma,
        ("div", "f32") if second == "rn" => Function::DivF,
        ("sqrt", "f32") if second == "rn" => Function::Sqrt,
        ("max", "f32") => Function::MaxF,
        ("min", "f32") => Function::MinF,
        ("neg", "f32") => Function::NegF,
        ("abs", "f32") => Function::AbsF,
        ("neg", "s32" | "s64") => Function::Neg(bits),
        ("ex2", "f32") => Function::Exp2Approx,
        ("rcp", "f32") if second == "rn" => Function::Recip,
        ("rcp", "f32") if second == "approx" => Function::RecipApprox,
        ("add", _) => Function::Add(bits),
        ("sub", _) => Function::Sub(bits),
        ("mul", _) if second == "wide" && bits <= 32 => Function::MulWide { bits, signed },
        ("mul", _) if second == "hi" && bits <= 32 => Function::MulHigh { bits, signed },
        ("mul", _) if second == "lo" => Function::Mul(bits),
        ("mad", _) if second == "lo" => Function::MadLow(bits),
        ("div", "u32") => Function::DivU32,
        ("rem", "u32") => Function::RemU32,
        ("min", "s32" | "u32") => Function::Min { signed },
        ("max", "s32" | "u32") => Function::Max { signed },
        ("and", _) => Function::And,
        ("or", _) => Function::Or,
        ("xor", _) => Function::Xor,
        ("not", _) => Function::Not(bits),
        ("shl", _) => Function::ShiftLeft(bits),
        ("shr", _) => Function::ShiftRight { bits, signed },
        ("bfe", "u32") => Function::ExtractU32,
        ("popc", _) => Function::CountOnes,
        ("selp", _) => Function::Select,
        ("setp", _) => comparison(second, ty, bits)?,
        ("cvt", _) => conversion(&parts[1..])?,
        _ => return Err(format!("unknown instruction `{}`", parts.join("."))),
    })
}

fn comparison(name: &str, ty: &str, bits: u32) -> Result<Function, String> {
    let class = match ty.as_bytes().first() {
        Some(b's') => Class::Signed(bits),
        Some(b'u' | b'b') => Class::Unsigned(bits),
        _ if ty == "f32" => Class::F32,
        _ if ty == "f64" => Class::F64,
        _ => return Err(format!("unknown type `{ty}`")),
    };
    let comparison = match name {
        "lt" => Comparison::Lt,
        "le" => Comparison::Le,
        "gt" => Comparison::Gt,
        "ge" => Comparison::Ge,
        "eq" => Comparison::Eq,
        "ne" => Comparison::Ne,
        "neu" => Comparison::Neu,
        "num" => Comparison::Num,
        "nan" => Comparison::Nan,
        other => return Err(format!("unknown comparison `{other}`")),
    };
    Ok(Function::Compare { comparison, class })
}

fn conversion(parts: &[&str]) -> Result<Function, String> {
    Ok(match parts {
        ["rn", "bf16x2", "f32"] => Function::PairToBf16,
        ["rn", "bf16", "f32"] => Function::ToBf16,
        ["f32", "bf16"] => Function::FromBf16,
        ["rzi", "s32", "f32"] => Function::ToInt,
        ["rzi", "f64", "f64"] => Function::TruncateD,
        ["rzi", "s32", "f64"] => Function::FromDouble,
        ["rn", "f64", "s32"] => Function::ToDouble,
        // Narrower results are cut where they are used.
        [to, from] if !to.starts_with('f') && !from.starts_with('f') => {
            let bits: u32 = from[1..].parse().map_err(|_| format!("unknown type `{from}`"))?;
            let to_bits: u32 = to[1..].parse().map_err(|_| format!("unknown type `{to}`"))?;
            Function::Extend { from: bits.min(to_bits), signed: from.starts_with('s') }
        }
        other => return Err(format!("unknown conversion `{}`", other.join("."))),
    })
}

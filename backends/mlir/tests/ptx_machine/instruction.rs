//! Instructions in the form that the machine executes.

use std::cmp::Ordering;

/// Index of a register of any kind.
pub(crate) type Reg = usize;

/// What an instruction reads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Reg(Reg),
    /// Bits.
    Const(u64),
    Special(Special),
    /// The start of shared memory.
    Shared,
    /// The address of a parameter's buffer.
    Param(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Special {
    ThreadX,
    BlockX,
    BlockY,
    GridX,
}

/// `[source + offset]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Address {
    pub(crate) base: Source,
    pub(crate) offset: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Instruction {
    /// Runs only where this predicate register has this value.
    pub(crate) guard: Option<(Reg, bool)>,
    pub(crate) op: Op,
    /// The line, for messages.
    pub(crate) text: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    /// A function of values to one register.
    Compute {
        function: Function,
        to: Reg,
        from: Vec<Source>,
    },
    Load {
        shared: bool,
        bytes: u32,
        to: Vec<Reg>,
        at: Address,
    },
    Store {
        shared: bool,
        bytes: u32,
        from: Vec<Source>,
        at: Address,
    },
    /// Bytes to copy, and how many of them come from memory.
    CopyAsync {
        to: Address,
        from: Address,
        bytes: u32,
        present: Source,
    },
    CopyCommit,
    CopyWait(u32),
    Branch(usize),
    Return,
    Barrier,
    Shuffle {
        to: Reg,
        value: Source,
        lanes: Source,
    },
    Ballot {
        to: Reg,
        value: Source,
    },
    LoadMatrix {
        transposed: bool,
        to: Vec<Reg>,
        at: Address,
    },
    Mma {
        to: Vec<Reg>,
        a: Vec<Source>,
        b: Vec<Source>,
        c: Vec<Source>,
    },
}

/// Functions of the values of one thread. The number is the width in bits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Function {
    Move,
    Add(u32),
    Sub(u32),
    Mul(u32),
    /// To twice as many bits.
    MulWide {
        bits: u32,
        signed: bool,
    },
    /// The upper half of that.
    MulHigh {
        bits: u32,
        signed: bool,
    },
    MadLow(u32),
    DivU32,
    RemU32,
    Min {
        signed: bool,
    },
    Max {
        signed: bool,
    },
    And,
    Or,
    Xor,
    Not(u32),
    Neg(u32),
    ShiftLeft(u32),
    ShiftRight {
        bits: u32,
        signed: bool,
    },
    ExtractU32,
    CountOnes,
    Select,
    Compare {
        comparison: Comparison,
        class: Class,
    },
    Extend {
        from: u32,
        signed: bool,
    },
    /// f32 to f32.
    AddF,
    SubF,
    MulF,
    Fma,
    DivF,
    Sqrt,
    Recip,
    FromBf16,
    MaxF,
    MinF,
    NegF,
    AbsF,
    Exp2Approx,
    RecipApprox,
    /// f32 to i32, toward zero.
    ToInt,
    /// f64 to f64; i32 to f64, and back toward zero.
    MulD,
    TruncateD,
    ToDouble,
    FromDouble,
    ToBf16,
    /// The second operand becomes the low half.
    PairToBf16,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Comparison {
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
    /// Not equal, or not a number.
    Neu,
    /// Both are numbers.
    Num,
    /// One is no number.
    Nan,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Class {
    Signed(u32),
    Unsigned(u32),
    F32,
    F64,
}

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn u(value: f32) -> u64 {
    u64::from(value.to_bits())
}

fn mask(bits: u32, value: u64) -> u64 {
    if bits == 64 { value } else { value & ((1 << bits) - 1) }
}

fn signed(bits: u32, value: u64) -> i64 {
    let shift = 64 - bits;
    (value << shift) as i64 >> shift
}

/// f32 to bf16, to nearest, ties to even.
pub(crate) fn to_bf16(value: f32) -> u64 {
    if value.is_nan() {
        return 0x7FFF;
    }
    let bits = value.to_bits();
    u64::from((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)
}

impl Function {
    pub(crate) fn apply(self, v: &[u64]) -> u64 {
        use Function::*;
        match self {
            Move => v[0],
            Add(bits) => mask(bits, v[0].wrapping_add(v[1])),
            Sub(bits) => mask(bits, v[0].wrapping_sub(v[1])),
            Mul(bits) => mask(bits, v[0].wrapping_mul(v[1])),
            MulWide { bits, signed: false } => mask(bits, v[0]) * mask(bits, v[1]),
            MulWide { bits, signed: true } => {
                mask(2 * bits, (signed(bits, v[0]) * signed(bits, v[1])) as u64)
            }
            MulHigh { bits, signed: false } => (mask(bits, v[0]) * mask(bits, v[1])) >> bits,
            MulHigh { bits, signed: true } => {
                mask(bits, ((signed(bits, v[0]) * signed(bits, v[1])) >> bits) as u64)
            }
            MadLow(bits) => mask(bits, v[0].wrapping_mul(v[1]).wrapping_add(v[2])),
            DivU32 => mask(32, v[0]).checked_div(mask(32, v[1])).unwrap_or(u64::from(u32::MAX)),
            RemU32 => mask(32, v[0]).checked_rem(mask(32, v[1])).unwrap_or(mask(32, v[0])),
            Min { signed: true } => mask(32, signed(32, v[0]).min(signed(32, v[1])) as u64),
            Max { signed: true } => mask(32, signed(32, v[0]).max(signed(32, v[1])) as u64),
            Min { signed: false } => mask(32, v[0]).min(mask(32, v[1])),
            Max { signed: false } => mask(32, v[0]).max(mask(32, v[1])),
            And => v[0] & v[1],
            Or => v[0] | v[1],
            Xor => v[0] ^ v[1],
            Not(bits) => mask(bits, !v[0]),
            Neg(bits) => mask(bits, v[0].wrapping_neg()),
            ShiftLeft(bits) => mask(bits, if v[1] >= u64::from(bits) { 0 } else { v[0] << v[1] }),
            ShiftRight { bits, signed: false } => {
                if v[1] >= u64::from(bits) {
                    0
                } else {
                    mask(bits, v[0]) >> v[1]
                }
            }
            ShiftRight { bits, signed: true } => mask(bits, (signed(bits, v[0]) >> v[1].min(63)) as u64),
            ExtractU32 => mask(32, v[0]) >> v[1] & ((1 << v[2]) - 1),
            CountOnes => u64::from(mask(32, v[0]).count_ones()),
            Select => {
                if v[2] & 1 == 1 {
                    v[0]
                } else {
                    v[1]
                }
            }
            Compare { comparison, class } => u64::from(compare(comparison, class, v[0], v[1])),
            Extend { from, signed: true } => signed(from, v[0]) as u64,
            Extend { from, signed: false } => mask(from, v[0]),
            _ => self.apply_real(v),
        }
    }

    fn apply_real(self, v: &[u64]) -> u64 {
        use Function::*;
        match self {
            AddF => u(f(v[0]) + f(v[1])),
            SubF => u(f(v[0]) - f(v[1])),
            MulF => u(f(v[0]) * f(v[1])),
            Fma => u(f(v[0]).mul_add(f(v[1]), f(v[2]))),
            DivF => u(f(v[0]) / f(v[1])),
            Recip => u(1.0 / f(v[0])),
            FromBf16 => mask(32, v[0] << 16),
            Sqrt => u(f(v[0]).sqrt()),
            MaxF => u(f(v[0]).max(f(v[1]))),
            MinF => u(f(v[0]).min(f(v[1]))),
            NegF => u(-f(v[0])),
            AbsF => u(f(v[0]).abs()),
            Exp2Approx => u(f64::from(f(v[0])).exp2() as f32),
            RecipApprox => u((1.0 / f64::from(f(v[0]))) as f32),
            MulD => (f64::from_bits(v[0]) * f64::from_bits(v[1])).to_bits(),
            TruncateD => f64::from_bits(v[0]).trunc().to_bits(),
            ToDouble => f64::from(signed(32, v[0]) as i32).to_bits(),
            FromDouble => u64::from((f64::from_bits(v[0]) as i32).cast_unsigned()),
            ToInt => u64::from((f(v[0]) as i32).cast_unsigned()),
            ToBf16 => to_bf16(f(v[0])),
            PairToBf16 => to_bf16(f(v[0])) << 16 | to_bf16(f(v[1])),
            _ => unreachable!("{self:?} is a function of integers"),
        }
    }
}

fn compare(comparison: Comparison, class: Class, a: u64, b: u64) -> bool {
    fn by<T: PartialOrd>(comparison: Comparison, a: T, b: T) -> bool {
        match comparison {
            Comparison::Lt => a < b,
            Comparison::Le => a <= b,
            Comparison::Gt => a > b,
            Comparison::Ge => a >= b,
            Comparison::Eq => a == b,
            Comparison::Ne => a.partial_cmp(&b).is_some_and(Ordering::is_ne),
            Comparison::Num => a.partial_cmp(&b).is_some(),
            Comparison::Nan => a.partial_cmp(&b).is_none(),
            Comparison::Neu => a != b,
        }
    }
    match class {
        Class::Signed(bits) => by(comparison, signed(bits, a), signed(bits, b)),
        Class::Unsigned(bits) => by(comparison, mask(bits, a), mask(bits, b)),
        Class::F32 => by(comparison, f(a), f(b)),
        Class::F64 => by(comparison, f64::from_bits(a), f64::from_bits(b)),
    }
}

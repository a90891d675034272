//! Values of a kernel, typed as MLIR types them.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Not, Rem, Shl, Shr, Sub};

use super::Code;

/// A type of values.
pub(crate) trait Ty: Copy + 'static {
    /// As MLIR writes it.
    const NAME: &'static str;
}

/// A type that can stand in memory, in a vector of 2 or 4 too.
pub(crate) trait Elem: Ty {
    /// Bytes.
    const BYTES: u32;
    /// Name of a vector of two.
    const NAME2: &'static str;
    /// Name of a vector of four.
    const NAME4: &'static str;
}

macro_rules! types {
    ($($(#[$doc:meta])* $ty:ident = $name:literal $(, $bytes:literal)?;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(crate) struct $ty;
        impl Ty for $ty { const NAME: &'static str = $name; }
        $(impl Elem for $ty {
            const BYTES: u32 = $bytes;
            const NAME2: &'static str = concat!("vector<2x", $name, ">");
            const NAME4: &'static str = concat!("vector<4x", $name, ">");
        })?
    )*};
}

types! {
    /// A truth value.
    I1 = "i1";
    /// A byte.
    I8 = "i8", 1;
    /// The usual integer.
    I32 = "i32", 4;
    /// A long integer.
    I64 = "i64", 8;
    /// The only type of arithmetic on reals.
    F32 = "f32", 4;
    /// For the share of a count alone: arithmetic in it is slow.
    F64 = "f64";
    /// A storage type.
    BF16 = "bf16", 2;
    /// Global memory.
    Global = "!llvm.ptr<1>";
    /// Shared memory of the block.
    Shared = "!llvm.ptr<3>";
    /// Shared memory of a block of the cluster.
    ClusterShared = "!llvm.ptr<7>";
    /// Four words: what `ldmatrix` yields.
    Fragment = "!llvm.struct<(i32, i32, i32, i32)>";
}

/// Two of a type.
#[derive(Clone, Copy)]
pub(crate) struct V2<T>(PhantomData<T>);
impl<T: Elem> Ty for V2<T> {
    const NAME: &'static str = T::NAME2;
}

/// Four of a type.
#[derive(Clone, Copy)]
pub(crate) struct V4<T>(PhantomData<T>);
impl<T: Elem> Ty for V4<T> {
    const NAME: &'static str = T::NAME4;
}

/// An address space. Pointers are named after the space they point into.
pub(crate) trait Ptr: Ty {}
impl Ptr for Global {}
impl Ptr for Shared {}
impl Ptr for ClusterShared {}

/// A value of the kernel that is being written.
pub(crate) struct Val<'c, T> {
    pub(super) code: &'c Code,
    pub(super) id: u32,
    ty: PhantomData<T>,
}

pub(crate) type Bool<'c> = Val<'c, I1>;
pub(crate) type Int<'c> = Val<'c, I32>;
pub(crate) type Long<'c> = Val<'c, I64>;
pub(crate) type Float<'c> = Val<'c, F32>;
pub(crate) type Double<'c> = Val<'c, F64>;
pub(crate) type GPtr<'c> = Val<'c, Global>;
pub(crate) type SPtr<'c> = Val<'c, Shared>;
pub(crate) type CPtr<'c> = Val<'c, ClusterShared>;

impl<T> Clone for Val<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Val<'_, T> {}

impl<T> fmt::Display for Val<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.id)
    }
}

impl<'c, T> Val<'c, T> {
    pub(super) fn new(code: &'c Code, id: u32) -> Self {
        Self { code, id, ty: PhantomData }
    }

    /// The kernel that it is a value of.
    pub(crate) fn code(self) -> &'c Code {
        self.code
    }
}

/// A value, or a number that becomes one.
pub(crate) trait Operand<'c, T>: Copy {
    /// The value; a number becomes a constant.
    fn val(self, code: &'c Code) -> Val<'c, T>;
}

impl<'c, T> Operand<'c, T> for Val<'c, T> {
    fn val(self, _: &'c Code) -> Val<'c, T> {
        self
    }
}

impl<'c> Operand<'c, I32> for i32 {
    fn val(self, code: &'c Code) -> Int<'c> {
        code.op(format_args!("llvm.mlir.constant({self} : i32) : i32"))
    }
}

impl<'c> Operand<'c, I32> for u32 {
    fn val(self, code: &'c Code) -> Int<'c> {
        self.cast_signed().val(code)
    }
}

impl<'c> Operand<'c, I64> for i64 {
    fn val(self, code: &'c Code) -> Long<'c> {
        code.op(format_args!("llvm.mlir.constant({self} : i64) : i64"))
    }
}

impl<'c> Operand<'c, I64> for u64 {
    fn val(self, code: &'c Code) -> Long<'c> {
        self.cast_signed().val(code)
    }
}

impl<'c> Operand<'c, F32> for f32 {
    fn val(self, code: &'c Code) -> Float<'c> {
        // By its bits: a decimal form would have to be read back to the same number.
        code.op(format_args!("llvm.mlir.constant(0x{:08X} : f32) : f32", self.to_bits()))
    }
}

impl<'c> Operand<'c, F64> for f64 {
    fn val(self, code: &'c Code) -> Double<'c> {
        code.op(format_args!("llvm.mlir.constant(0x{:016X} : f64) : f64", self.to_bits()))
    }
}

impl Code {
    /// An i32 constant.
    pub(crate) fn int(&self, value: u32) -> Int<'_> {
        value.val(self)
    }

    /// A constant truth.
    pub(crate) fn truth(&self, holds: bool) -> Bool<'_> {
        self.op(format_args!("llvm.mlir.constant({holds}) : i1"))
    }

    /// An f32 constant.
    pub(crate) fn float(&self, value: f32) -> Float<'_> {
        value.val(self)
    }
}

/// Types with arithmetic, and the names of their operations.
pub(crate) trait Num: Ty {
    const ADD: &'static str;
    const SUB: &'static str;
    const MUL: &'static str;
    const DIV: &'static str;
}

impl Num for I32 {
    const ADD: &'static str = "add";
    const SUB: &'static str = "sub";
    const MUL: &'static str = "mul";
    const DIV: &'static str = "udiv";
}

impl Num for I64 {
    const ADD: &'static str = "add";
    const SUB: &'static str = "sub";
    const MUL: &'static str = "mul";
    const DIV: &'static str = "udiv";
}

impl Num for F32 {
    const ADD: &'static str = "fadd";
    const SUB: &'static str = "fsub";
    const MUL: &'static str = "fmul";
    const DIV: &'static str = "fdiv";
}

impl Num for F64 {
    const ADD: &'static str = "fadd";
    const SUB: &'static str = "fsub";
    const MUL: &'static str = "fmul";
    const DIV: &'static str = "fdiv";
}

/// Types with bits.
pub(crate) trait Bits: Ty {}
impl Bits for I1 {}
impl Bits for I32 {}
impl Bits for I64 {}

fn binary<'c, T: Ty>(name: &str, a: Val<'c, T>, b: Val<'c, T>) -> Val<'c, T> {
    a.code.op(format_args!("llvm.{name} {a}, {b} : {}", T::NAME))
}

macro_rules! operators {
    ($($class:ident $op:ident $method:ident $name:expr;)*) => {$(
        impl<'c, T: $class, R: Operand<'c, T>> $op<R> for Val<'c, T> {
            type Output = Val<'c, T>;
            fn $method(self, right: R) -> Val<'c, T> {
                let right = right.val(self.code);
                binary($name, self, right)
            }
        }
    )*};
}

operators! {
    Num Add add T::ADD;
    Num Sub sub T::SUB;
    Num Mul mul T::MUL;
    Num Div div T::DIV;
    Bits Rem rem "urem";
    Bits BitAnd bitand "and";
    Bits BitOr bitor "or";
    Bits BitXor bitxor "xor";
    Bits Shl shl "shl";
    Bits Shr shr "lshr";
}

macro_rules! comparisons {
    ($($ty:ty: $class:ident as $operation:literal $($method:ident $predicate:literal)*;)*) => {$(
        impl<'c> $ty {
            $(pub(crate) fn $method(self, right: impl Operand<'c, $class>) -> Bool<'c> {
                let right = right.val(self.code);
                let ty = $class::NAME;
                self.code.op(format_args!(concat!("llvm.", $operation, " \"", $predicate, "\" {}, {} : {}"), self, right, ty))
            })*
        }
    )*};
}

comparisons! {
    // `below` takes both without sign.
    Int<'c>: I32 as "icmp" lt "slt" gt "sgt" ge "sge" eq "eq" ne "ne" below "ult";
    Long<'c>: I64 as "icmp" below "ult";
    Float<'c>: F32 as "fcmp" lt "olt" gt "ogt" ge "oge";
    Double<'c>: F64 as "fcmp" lt "olt";
}

impl<'c> Not for Bool<'c> {
    type Output = Bool<'c>;

    fn not(self) -> Bool<'c> {
        let one: Bool<'c> = self.code.op("llvm.mlir.constant(1 : i1) : i1");
        self ^ one
    }
}

impl<'c> Bool<'c> {
    /// `yes` where it holds, else `no`.
    pub(crate) fn select<T: Ty>(self, yes: impl Operand<'c, T>, no: impl Operand<'c, T>) -> Val<'c, T> {
        let (yes, no) = (yes.val(self.code), no.val(self.code));
        self.code.op(format_args!("llvm.select {self}, {yes}, {no} : i1, {}", T::NAME))
    }

    /// 0 or 1.
    pub(crate) fn to_int(self) -> Int<'c> {
        self.code.op(format_args!("llvm.zext {self} : i1 to i32"))
    }
}

impl<'c> Int<'c> {
    /// The smaller one, as signed numbers.
    pub(crate) fn min(self, right: impl Operand<'c, I32>) -> Int<'c> {
        let right = right.val(self.code);
        self.code.op(format_args!("llvm.intr.smin({self}, {right}) : (i32, i32) -> i32"))
    }

    /// The larger one, as signed numbers.
    pub(crate) fn max(self, right: impl Operand<'c, I32>) -> Int<'c> {
        let right = right.val(self.code);
        self.code.op(format_args!("llvm.intr.smax({self}, {right}) : (i32, i32) -> i32"))
    }

    /// Number of bits that are set.
    pub(crate) fn count_ones(self) -> Int<'c> {
        self.code.op(format_args!("llvm.intr.ctpop({self}) : (i32) -> i32"))
    }

    /// Widened without sign.
    pub(crate) fn to_long(self) -> Long<'c> {
        self.code.op(format_args!("llvm.zext {self} : i32 to i64"))
    }

    /// The same number, which is not negative.
    pub(crate) fn to_double(self) -> Double<'c> {
        self.code.op(format_args!("llvm.sitofp {self} : i32 to f64"))
    }

    /// The nearest f32 of a number that is not negative.
    pub(crate) fn to_float(self) -> Float<'c> {
        self.code.op(format_args!("llvm.sitofp {self} : i32 to f32"))
    }

    /// The low byte.
    pub(crate) fn to_byte(self) -> Val<'c, I8> {
        self.code.op(format_args!("llvm.trunc {self} : i32 to i8"))
    }

    /// The same bits as an f32.
    pub(crate) fn as_float(self) -> Float<'c> {
        self.code.op(format_args!("llvm.bitcast {self} : i32 to f32"))
    }
}

impl<'c> Val<'c, I8> {
    /// Widened without sign.
    pub(crate) fn to_int(self) -> Int<'c> {
        self.code.op(format_args!("llvm.zext {self} : i8 to i32"))
    }
}

impl<'c> Float<'c> {
    /// The larger one; a NaN loses.
    pub(crate) fn max(self, right: impl Operand<'c, F32>) -> Float<'c> {
        let right = right.val(self.code);
        self.code.op(format_args!("llvm.intr.maxnum({self}, {right}) : (f32, f32) -> f32"))
    }

    /// The larger one; NaN if one of them is: `max.NaN`, which each GPU from `sm_80` on has.
    pub(crate) fn max_or_nan(self, right: impl Operand<'c, F32>) -> Float<'c> {
        let right = right.val(self.code);
        self.code.op(format_args!("llvm.intr.maximum({self}, {right}) : (f32, f32) -> f32"))
    }

    /// Square root, rounded to nearest.
    pub(crate) fn sqrt(self) -> Float<'c> {
        self.code.op(format_args!("llvm.intr.sqrt({self}) : (f32) -> f32"))
    }

    /// Rounded to nearest, ties to even.
    pub(crate) fn to_bf16(self) -> Val<'c, BF16> {
        self.code.op(format_args!("llvm.fptrunc {self} : f32 to bf16"))
    }
}

impl<'c> Double<'c> {
    /// The whole part, which fits.
    pub(crate) fn to_int(self) -> Int<'c> {
        self.code.op(format_args!("llvm.fptosi {self} : f64 to i32"))
    }
}

impl<'c> Val<'c, BF16> {
    /// The same number.
    pub(crate) fn to_float(self) -> Float<'c> {
        self.code.op(format_args!("llvm.fpext {self} : bf16 to f32"))
    }
}

impl<'c, T: Elem> Val<'c, V2<T>> {
    /// A vector of two.
    pub(crate) fn pair(items: [Val<'c, T>; 2]) -> Self {
        assemble(&items, T::NAME2)
    }

    /// Its elements.
    pub(crate) fn items(self) -> [Val<'c, T>; 2] {
        [0, 1].map(|idx| element(self, idx))
    }
}

impl<'c, T: Elem> Val<'c, V4<T>> {
    /// A vector of four.
    pub(crate) fn quad(items: [Val<'c, T>; 4]) -> Self {
        assemble(&items, T::NAME4)
    }

    /// Its elements.
    pub(crate) fn items(self) -> [Val<'c, T>; 4] {
        [0, 1, 2, 3].map(|idx| element(self, idx))
    }
}

/// Two numbers rounded to bf16, the first in the low half of the word.
pub(crate) fn pack_bf16<'c>(low: Float<'c>, high: Float<'c>) -> Int<'c> {
    let code = low.code;
    let pair = Val::<V2<F32>>::pair([low, high]);
    let packed: Val<'c, V2<BF16>> =
        code.op(format_args!("llvm.fptrunc {pair} : vector<2xf32> to vector<2xbf16>"));
    code.op(format_args!("llvm.bitcast {packed} : vector<2xbf16> to i32"))
}

/// The two bf16 numbers of a word, the one in the low half first. A bf16 is the upper half of an f32.
pub(crate) fn unpack_bf16(word: Int<'_>) -> [Float<'_>; 2] {
    [(word << 16).as_float(), (word & 0xFFFF_0000_u32).as_float()]
}

fn assemble<'c, T: Elem, V: Ty>(items: &[Val<'c, T>], name: &str) -> Val<'c, V> {
    let code = items[0].code;
    let mut vector: Val<'c, V> = code.op(format_args!("llvm.mlir.undef : {name}"));
    for (idx, item) in (0u32..).zip(items) {
        let at = code.int(idx);
        vector = code.op(format_args!("llvm.insertelement {item}, {vector}[{at} : i32] : {name}"));
    }
    vector
}

fn element<'c, T: Elem, V: Ty>(vector: Val<'c, V>, idx: u32) -> Val<'c, T> {
    let at = vector.code.int(idx);
    vector.code.op(format_args!("llvm.extractelement {vector}[{at} : i32] : {}", V::NAME))
}

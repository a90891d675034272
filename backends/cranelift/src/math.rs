//! Functions of numbers, for one or four lanes with the same bits. Those with an exponential in them are helpers, which
//! work on many numbers at once and know the processor.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::abi::{Function, Helpers};
use skipc_plan::pointwise::{Binary, Unary};

use crate::emit::{Emitter, Lanes};
use crate::error::Fault;
use crate::memory::PLAIN;

/// The helper that computes this function, if one does.
pub(crate) fn function_of(unary: Unary) -> Option<Function> {
    match unary {
        Unary::Gelu => Some(Function::Gelu),
        Unary::Silu => Some(Function::Silu),
        Unary::Sigmoid => Some(Function::Sigmoid),
        Unary::GeluErf => Some(Function::GeluErf),
        Unary::Tanh => Some(Function::Tanh),
        Unary::Relu | Unary::Relu2 | Unary::OneMinus | Unary::Scale(_) => None,
    }
}

impl Emitter<'_> {
    pub(crate) fn unary(&mut self, function: Unary, x: Value, lanes: Lanes) -> Result<Value, Fault> {
        Ok(match function {
            Unary::Relu => {
                let zero = self.real(0.0, lanes);
                self.at_least(x, zero, lanes)
            }
            Unary::Relu2 => {
                let positive = self.unary(Unary::Relu, x, lanes)?;
                self.ins().fmul(positive, positive)
            }
            Unary::OneMinus => {
                let one = self.real(1.0, lanes);
                self.ins().fsub(one, x)
            }
            Unary::Scale(by) => {
                let by = self.real(by.0 as f32, lanes);
                self.ins().fmul(x, by)
            }
            Unary::Gelu | Unary::Silu | Unary::Sigmoid | Unary::GeluErf | Unary::Tanh => {
                return Err(Fault::Malformed("a helper's function was taken for an instruction".to_owned()));
            }
        })
    }

    pub(crate) fn binary(&mut self, function: Binary, a: Value, b: Value) -> Value {
        match function {
            Binary::Add => self.ins().fadd(a, b),
            Binary::Sub => self.ins().fsub(a, b),
            Binary::Mul => self.ins().fmul(a, b),
        }
    }

    /// Applies a function to `n` numbers in memory.
    pub(crate) fn map(&mut self, function: Function, numbers: Value, n: Value) {
        let (table, signature, code) = (self.helpers, self.map_signature, self.int(function.code() as i64));
        let helper = self.ins().load(I64, PLAIN, table, Helpers::MAP_F32);
        self.ins().call_indirect(signature, helper, &[code, numbers, n]);
    }

    /// Turns `n` scores in memory into `e^(score · scale − largest)`; gives their sum.
    pub(crate) fn softmax(&mut self, scores: Value, n: Value, scale: Value, largest: Value) -> Value {
        let (table, signature) = (self.helpers, self.softmax_signature);
        let helper = self.ins().load(I64, PLAIN, table, Helpers::SOFTMAX_F32);
        let call = self.ins().call_indirect(signature, helper, &[scores, n, scale, largest]);
        self.builder.inst_results(call)[0]
    }

    /// `max(x, low)`; a NaN in `x` stays.
    pub(crate) fn at_least(&mut self, x: Value, low: Value, lanes: Lanes) -> Value {
        let less = self.ins().fcmp(FloatCC::LessThan, x, low);
        match lanes {
            Lanes::One => self.ins().select(less, low, x),
            Lanes::Four => {
                let mask = self.recast(less, lanes.real());
                self.ins().bitselect(mask, low, x)
            }
        }
    }
}

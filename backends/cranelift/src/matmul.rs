//! Matmuls: calls of the helper, and dot products.

use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{InstBuilder, Value};
use skipc_artifact::abi::Helpers;

use crate::emit::{Columns, Emitter};
use crate::error::Fault;
use crate::memory::{PLAIN, Row};

/// A matrix of f32: its address, and how many elements its rows are apart.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) address: Value,
    pub(crate) stride: Value,
}

/// The right operand of a matmul, which may lie either way.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    pub(crate) address: Value,
    /// Elements between what makes one column of the result and what makes the next.
    pub(crate) outer: Value,
    /// Elements between the factors of one column.
    pub(crate) inner: Value,
}

/// `c[m, n] = a[m, k] · b[n, k]ᵀ`.
pub(crate) struct Matmul {
    pub(crate) m: Value,
    pub(crate) n: Value,
    pub(crate) k: Value,
    pub(crate) a: Matrix,
    pub(crate) b: Right,
    pub(crate) c: Matrix,
}

impl Matmul {
    pub(crate) fn call(&self, e: &mut Emitter<'_>) {
        let (table, signature) = (e.helpers, e.gemm_signature);
        let helper = e.ins().load(I64, PLAIN, table, Helpers::GEMM_F32);
        let Matmul { m, n, k, a, b, c } = *self;
        let args = [m, n, k, a.address, a.stride, b.address, b.outer, b.inner, c.address, c.stride];
        e.ins().call_indirect(signature, helper, &args);
    }
}

/// The products of one row with several, in one pass.
pub(crate) fn dot_products(
    e: &mut Emitter<'_>,
    columns: Columns,
    x: Row,
    others: &[Row],
) -> Result<Vec<Value>, Fault> {
    e.sum_columns(columns, others.len(), |e, col, lanes| {
        let value = e.load(x, col, lanes);
        let mut products = Vec::with_capacity(others.len());
        for other in others {
            let other = e.load(*other, col, lanes);
            products.push(e.ins().fmul(value, other));
        }
        Ok(products)
    })
}

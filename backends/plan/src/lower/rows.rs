//! Ops that are kernels of their own: norms, embedding, rotary positions, router logits, attention.

use skipc_artifact::target::DType;
use skipc_ir::{F64, Op, Value};

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::fuse::Group;
use crate::kernel::{Attention, Body, NormKind, Rowwise, Slot, Spread};
use crate::plan::ConstantSource;

impl Ctx<'_> {
    pub(super) fn rowwise(&mut self, group: &Group, value: Value) -> Result<(), PlanError> {
        let mut bind = self.bind(self.graph.ty(value).rows(), value)?;
        let body = match self.graph.op(value) {
            Op::RmsNorm { .. } | Op::LayerNorm { .. } => Body::Rowwise(self.norm(&mut bind, value)?),
            Op::InvRms { .. } | Op::InvStd { .. } => Body::Rowwise(self.row_scale(&mut bind, value)?),
            Op::Embed {} => Body::Rowwise(self.embed(&mut bind, value)?),
            Op::Rope { .. } => Body::Rowwise(self.rope(&mut bind, value)?),
            Op::Attention { .. } => Body::Attention(self.attention(&mut bind, value)?),
            _ => return Err(self.unsupported("do this op", value)),
        };
        self.step(group, bind, body);
        Ok(())
    }

    fn norm(&mut self, bind: &mut Bind, value: Value) -> Result<Rowwise, PlanError> {
        let operands = self.graph.operands(value);
        let cols = self.graph.ty(value).cols();
        let (eps, kind, x, gain) = match (self.graph.op(value), operands.as_slice()) {
            (Op::RmsNorm { eps }, [x, gain]) => (*eps, NormKind::Rms, x, gain),
            (Op::LayerNorm { eps }, [x, gain, bias]) => {
                let bias = self.weight(bind, "bias", *bias, DType::F32)?;
                (*eps, NormKind::Layer { bias }, x, gain)
            }
            _ => return Err(self.internal("this is no norm", value)),
        };
        let gain = self.weight(bind, "gain", *gain, DType::F32)?;
        let x = self.operand(bind, "x", *x)?;
        let result = self.result(value);
        let out = self.written(bind, "out", result);
        Ok(Rowwise::Norm { kind, eps, cols, x, gain, out })
    }

    fn row_scale(&mut self, bind: &mut Bind, value: Value) -> Result<Rowwise, PlanError> {
        let operands = self.graph.operands(value);
        let (eps, spread, x) = match (self.graph.op(value), operands.as_slice()) {
            (Op::InvRms { eps }, [x]) => (*eps, Spread::Rms, x),
            (Op::InvStd { eps }, [x]) => (*eps, Spread::Std, x),
            _ => return Err(self.internal("this is no row scale", value)),
        };
        let cols = self.graph.ty(*x).cols();
        let x = self.operand(bind, "x", *x)?;
        let result = self.result(value);
        let out = self.written(bind, "out", result);
        Ok(Rowwise::RowScale { spread, eps, cols, x, out })
    }

    fn embed(&mut self, bind: &mut Bind, value: Value) -> Result<Rowwise, PlanError> {
        let operands = self.graph.operands(value);
        let [table, ids] = operands.as_slice() else {
            return Err(self.internal("an embedding has a table and ids", value));
        };
        let n_ids = match self.graph.ty(*table).rows() {
            skipc_ir::Dim::Fixed(rows) => rows,
            _ => return Err(self.unsupported("look ids up in token rows", value)),
        };
        let ids = self.operand(bind, "ids", *ids)?;
        let table = self.weight(bind, "table", *table, self.options.dtype)?;
        let result = self.result(value);
        let out = self.written(bind, "out", result);
        Ok(Rowwise::Embed { cols: self.graph.ty(value).cols(), ids, n_ids, table, out })
    }

    fn rope(&mut self, bind: &mut Bind, value: Value) -> Result<Rowwise, PlanError> {
        let operands = self.graph.operands(value);
        let (Op::Rope { heads, theta }, [x, positions]) = (self.graph.op(value), operands.as_slice()) else {
            return Err(self.internal("this is no rotary embedding", value));
        };
        let width = self.graph.ty(value).cols() / (*heads).max(1);
        let x = self.operand(bind, "x", *x)?;
        let positions = self.operand(bind, "positions", *positions)?;
        let (cos, sin) = self.angles(bind, *theta, width);
        let result = self.result(value);
        let out = self.written(bind, "out", result);
        Ok(Rowwise::Rope { heads: *heads, width, x, positions, cos, sin, out })
    }

    /// Tables of the cosine and sine of every position's angles, for heads of this width.
    pub(super) fn angles(&mut self, bind: &mut Bind, theta: F64, width: u32) -> (Slot, Slot) {
        let (half, positions) = (width / 2, self.options.max_positions);
        let shape = (DType::F32, positions, half);
        let cos = ConstantSource::RopeCos { theta, half, positions };
        let cos = self.constant(bind, "cos", cos, shape);
        let sin = ConstantSource::RopeSin { theta, half, positions };
        (cos, self.constant(bind, "sin", sin, shape))
    }

    fn attention(&mut self, bind: &mut Bind, value: Value) -> Result<Attention, PlanError> {
        let operands = self.graph.operands(value);
        let (Op::Attention { heads, kv_heads }, [q, k, v, q_pos, q_seq, k_pos, k_seq]) =
            (self.graph.op(value), operands.as_slice())
        else {
            return Err(self.internal("this is no attention", value));
        };
        let kv_extent = self.extent(bind, self.graph.ty(*k).rows(), value)?;
        let result = self.result(value);
        Ok(Attention {
            heads: *heads,
            kv_heads: *kv_heads,
            width: self.graph.ty(value).cols() / (*heads).max(1),
            q: self.operand(bind, "q", *q)?,
            q_pos: self.operand(bind, "q_pos", *q_pos)?,
            q_seq: self.operand(bind, "q_seq", *q_seq)?,
            kv_extent,
            k: self.operand(bind, "k", *k)?,
            v: self.operand(bind, "v", *v)?,
            k_pos: self.operand(bind, "k_pos", *k_pos)?,
            k_seq: self.operand(bind, "k_seq", *k_seq)?,
            out: self.written(bind, "out", result),
        })
    }
}

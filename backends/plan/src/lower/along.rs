//! Ops that mix the rows of a sequence: means and convolutions.

use skipc_artifact::target::DType;
use skipc_ir::Value;

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::kernel::{Along, Conv, Inputs, WeightLayout};

impl Ctx<'_> {
    pub(super) fn sequence_mean(&mut self, bind: &mut Bind, value: Value) -> Result<Along, PlanError> {
        let [x, sequences] = self.operands(value)?;
        let cols = self.graph.ty(x).cols();
        let x = self.operand(bind, "x", x)?;
        let sequences = self.operand(bind, "sequences", sequences)?;
        let result = self.result(value)?;
        let out = self.written(bind, "out", result);
        Ok(Along::Mean { cols, x, sequences, out })
    }

    pub(super) fn conv(&mut self, bind: &mut Bind, value: Value) -> Result<Along, PlanError> {
        let [x, weight, q_pos, q_seq, k_pos, k_seq] = self.operands(value)?;
        let inputs = Inputs::Rows {
            extent: self.extent(bind, self.graph.ty(x).rows(), value)?,
            x: self.operand(bind, "x", x)?,
            positions: self.operand(bind, "k_pos", k_pos)?,
            sequences: self.operand(bind, "k_seq", k_seq)?,
        };
        self.convolved(bind, value, (weight, [q_pos, q_seq]), inputs)
    }

    pub(super) fn cached_conv(&mut self, bind: &mut Bind, value: Value) -> Result<Along, PlanError> {
        let operands = self.graph.operands(value);
        let [x, weight, q_pos, q_seq, pages, ref present @ ..] = operands[..] else {
            return Err(self.internal("an op has the operands of its table", value));
        };
        let inputs = Inputs::Cached {
            cache: self.cache(bind, "x", x)?,
            pages: self.cache(bind, "pages", pages)?,
            present: present.first().map(|present| self.cache(bind, "present", *present)).transpose()?,
        };
        self.convolved(bind, value, (weight, [q_pos, q_seq]), inputs)
    }

    fn convolved(
        &mut self,
        bind: &mut Bind,
        value: Value,
        (weight, [q_pos, q_seq]): (Value, [Value; 2]),
        inputs: Inputs,
    ) -> Result<Along, PlanError> {
        let (cols, taps) = (self.graph.ty(value).cols(), self.graph.ty(weight).cols());
        // Columns side by side, for each tap: the weight has a row for each column.
        let filters = self.sum_weight(bind, weight, (DType::F32, WeightLayout::Columns), None)?.weight;
        let positions = self.operand(bind, "q_pos", q_pos)?;
        let sequences = self.operand(bind, "q_seq", q_seq)?;
        let result = self.result(value)?;
        let out = self.written(bind, "out", result);
        Ok(Along::Conv(Conv { cols, taps, filters, positions, sequences, inputs, out }))
    }
}

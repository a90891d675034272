//! Constants: weights and tables.

use indexmap::IndexMap;
use skipc_artifact::program::{Arg, Constant};
use skipc_artifact::target::DType;
use skipc_ir::{Op, Value};

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::kernel::{Access, Slot};
use crate::plan::{ConstantSource, PlanConstant};

/// Bytes of which a constant's place is a multiple.
const ALIGN: u64 = 256;

/// One constant for each source and type.
#[derive(Default)]
pub(super) struct Constants(IndexMap<(ConstantSource, DType), (u32, u32)>);

impl Constants {
    fn add(&mut self, source: ConstantSource, dtype: DType, shape: (u32, u32)) -> u32 {
        let (idx, _) = self.0.insert_full((source, dtype), shape);
        idx as u32
    }

    /// Places them one after the other.
    pub(super) fn lay_out(self) -> Result<Vec<PlanConstant>, PlanError> {
        let mut offset = 0u64;
        let mut placed = Vec::with_capacity(self.0.len());
        for ((source, dtype), (rows, cols)) in self.0 {
            let constant = Constant { name: name(&source), dtype, rows, cols, offset };
            let too_large = PlanError::TooLarge { what: "constants" };
            let bytes = (u64::from(rows) * u64::from(cols)).checked_mul(u64::from(dtype.size()));
            let end = bytes.and_then(|bytes| offset.checked_add(bytes));
            offset = end.and_then(|end| end.checked_next_multiple_of(ALIGN)).ok_or(too_large)?;
            placed.push(PlanConstant { source, constant });
        }
        Ok(placed)
    }
}

fn name(source: &ConstantSource) -> String {
    match source {
        ConstantSource::Zero => "zero".to_owned(),
        ConstantSource::Weight { name } => name.clone(),
        ConstantSource::RopeCos { theta, half, .. } => format!("rope cos theta={theta} half={half}"),
        ConstantSource::RopeSin { theta, half, .. } => format!("rope sin theta={theta} half={half}"),
    }
}

impl Ctx<'_> {
    /// Binds a weight in this type.
    pub(super) fn weight(
        &mut self,
        bind: &mut Bind,
        name: &str,
        value: Value,
        dtype: DType,
    ) -> Result<Slot, PlanError> {
        let Op::Weight { name: tensor, shape } = self.graph.op(value) else {
            return Err(self.unsupported("take anything but a weight here", value));
        };
        let shape = match *shape.0.as_slice() {
            [len] => (1, len),
            [rows, cols] => (rows, cols),
            _ => return Err(self.unsupported("take a weight of this rank", value)),
        };
        let source = ConstantSource::Weight { name: tensor.0.to_string() };
        Ok(self.constant(bind, name, source, (dtype, shape.0, shape.1)))
    }

    /// Binds a constant of this type, rows and columns.
    pub(super) fn constant(
        &mut self,
        bind: &mut Bind,
        name: &str,
        source: ConstantSource,
        (dtype, rows, cols): (DType, u32, u32),
    ) -> Slot {
        let idx = self.constants.add(source, dtype, (rows, cols));
        bind.slot(name, (Arg::Constant(idx), dtype, cols), Access::Read)
    }
}

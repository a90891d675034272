//! Constants: weights and tables.

use indexmap::IndexMap;
use skipc_artifact::program::{Arg, Constant};
use skipc_artifact::target::DType;
use skipc_ir::{Dim, Op, Value};

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::kernel::{Access, Slot};
use crate::plan::{ConstantSource, PlanConstant};
use crate::recipe::{self, RecipeStep};

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
        ConstantSource::Recipe { steps } => recipe::describe(steps),
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
        let shape = match self.graph.ty(value).as_tensor() {
            Some((_, &[Dim::Fixed(len)])) => (1, len),
            Some((_, &[Dim::Fixed(rows), Dim::Fixed(cols)])) => (rows, cols),
            _ => return Err(self.unsupported("take a weight of this rank", value)),
        };
        let source = match self.graph.op(value) {
            Op::Weight { name, .. } => ConstantSource::Weight { name: name.0.to_string() },
            _ => ConstantSource::Recipe { steps: self.recipe(value)? },
        };
        Ok(self.constant(bind, name, source, (dtype, shape.0, shape.1)))
    }

    /// How a constant is made, operands first. Gains become constants of their own, too, though no kernel reads them: with
    /// them whoever has the program has the tensors that it was made from, up to rounding.
    fn recipe(&mut self, value: Value) -> Result<Vec<RecipeStep>, PlanError> {
        let mut steps = Vec::new();
        // From the result to the weights, last operand first: the reverse of the order in which it is made.
        let mut waiting = vec![value];
        while let Some(value) = waiting.pop() {
            steps.push(match self.graph.op(value) {
                Op::Weight { name, shape } => {
                    let (name, sizes) = (name.0.to_string(), shape.0.as_slice());
                    if let [len] = *sizes {
                        self.constants.add(
                            ConstantSource::Weight { name: name.clone() },
                            DType::F32,
                            (1, len),
                        );
                    }
                    let rows = if let [rows, _] = *sizes { rows } else { 1 };
                    RecipeStep::Weight { name, rows }
                }
                Op::Concat {} => RecipeStep::Concat,
                Op::FoldGain {} => RecipeStep::FoldGain,
                _ => return Err(self.unsupported("take anything but a weight here", value)),
            });
            if steps.len() > recipe::MAX_STEPS {
                return Err(PlanError::TooLarge { what: "recipes of constants" });
            }
            waiting.extend(self.graph.operands(value));
        }
        steps.reverse();
        Ok(steps)
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

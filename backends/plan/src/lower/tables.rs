//! Constants: weights and tables.

use indexmap::IndexMap;
use skipc_artifact::program::{self, Arg};
use skipc_artifact::target::DType;
use skipc_ir::{Dim, F64, Frequencies, Op, RopeScaling, Value};

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::kernel::{Access, BLOCK_TERMS, Slot, Sum, WeightLayout, panel_terms};
use crate::op_kind::{Constant, OpKind};
use crate::plan::{ConstantSource, PlanConstant};
use crate::recipe::{self, RecipeStep};

/// Bytes of which a constant's place is a multiple.
const ALIGN: u64 = 256;

/// One constant for each source and type.
#[derive(Default)]
pub(crate) struct Constants(IndexMap<(ConstantSource, DType), (u32, u32)>);

impl Constants {
    pub(crate) fn add(&mut self, source: ConstantSource, dtype: DType, shape: (u32, u32)) -> u32 {
        let (idx, _) = self.0.insert_full((source, dtype), shape);
        idx as u32
    }

    /// The rows of what an argument gives, if it is one of these.
    pub(crate) fn rows(&self, arg: Arg) -> Option<u32> {
        let Arg::Constant(idx) = arg else { return None };
        self.0.get_index(idx as usize).map(|(_, (rows, _))| *rows)
    }

    /// Places them one after the other.
    pub(crate) fn lay_out(self) -> Result<Vec<PlanConstant>, PlanError> {
        let mut offset = 0u64;
        let mut placed = Vec::with_capacity(self.0.len());
        for ((source, dtype), (rows, cols)) in self.0 {
            let constant = program::Constant { name: name(&source), dtype, rows, cols, offset };
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
        ConstantSource::RopeCos { frequencies, half, .. } => rope_name("cos", *frequencies, *half),
        ConstantSource::Forced { first, .. } => format!("first {first}"),
        ConstantSource::HashChoice { experts, seed, block, .. } => {
            format!("hash of {experts} seed={seed} block={block}")
        }
        ConstantSource::Beginning { .. } => "beginning".to_owned(),
        ConstantSource::RopeSin { frequencies, half, .. } => rope_name("sin", *frequencies, *half),
    }
}

fn rope_name(function: &str, Frequencies { theta, scaling }: Frequencies, half: u32) -> String {
    let scaled = match scaling {
        None => "",
        Some(RopeScaling::Linear { .. }) => " linear",
        Some(RopeScaling::Llama3 { .. }) => " llama3",
    };
    format!("rope {function} theta={theta} half={half}{scaled}")
}

impl Ctx<'_> {
    /// Binds a weight in this type. A parameter that trains lies in f32, and is rounded where bf16 is asked for.
    pub(super) fn weight(
        &mut self,
        bind: &mut Bind,
        name: &str,
        value: Value,
        dtype: DType,
    ) -> Result<Slot, PlanError> {
        if OpKind::of(self.graph.op(value)) == OpKind::Parameter {
            let buffer = match dtype {
                DType::F32 => self.buffer_of(value)?,
                _ => self.rounded(value, dtype)?,
            };
            return Ok(bind.slot(name, self.arg(buffer), Access::Read));
        }
        if let (Op::OffsetGain { by }, &[gain]) =
            (self.graph.op(value), self.graph.operands(value).as_slice())
            && OpKind::of(self.graph.op(gain)) == OpKind::Parameter
        {
            let buffer = self.offset(value, gain, *by)?;
            return Ok(bind.slot(name, self.arg(buffer), Access::Read));
        }
        let shape = self.shape(value)?;
        let source = if let Op::Weight { name, .. } = self.graph.op(value) {
            ConstantSource::Weight { name: name.0.to_string() }
        } else {
            ConstantSource::Recipe { steps: self.recipe(value)? }
        };
        Ok(self.constant(bind, name, source, (dtype, shape.0, shape.1)))
    }

    /// Binds the weight of a sum, or one of its terms of bf16. Sums over some of a weight's rows share one constant.
    pub(super) fn sum_weight(
        &mut self,
        bind: &mut Bind,
        value: Value,
        (dtype, layout): (DType, WeightLayout),
        term: Option<u32>,
    ) -> Result<Sum, PlanError> {
        if OpKind::of(self.graph.op(value)) == OpKind::Parameter {
            return Ok(Sum::of(self.weight(bind, "w", value, dtype)?, 0));
        }
        let (_, cols) = self.shape(value)?;
        let stack = self.stack_of(value);
        let mut steps = self.recipe(value)?;
        let mut row = 0u32;
        steps.retain(|step| match step {
            RecipeStep::Rows { start, .. } => {
                row = row.saturating_add(*start);
                false
            }
            _ => true,
        });
        steps.extend(term.map(|term| RecipeStep::Term { term }));
        steps.retain(|step| !matches!(step, RecipeStep::Stacked { .. }));
        let stacked = stack.map(|count| RecipeStep::Stacked { count });
        let copies = stack.unwrap_or(1);
        let outputs = self.shape(self.tensor_of(value))?.0 / copies;
        if layout == WeightLayout::Levels {
            let mut panels = |step, dtype, cols| {
                let panels = RecipeStep::Panels { outputs, terms: panel_terms(dtype) };
                let mut steps = [&steps[..], &[step, panels]].concat();
                steps.extend(stacked.clone());
                let source = ConstantSource::Recipe { steps };
                let shape = layout.shape((outputs, cols), dtype);
                let shape = shape.and_then(|(rows, cols)| Some((rows.checked_mul(copies)?, cols)));
                let (rows, cols) = shape.ok_or(PlanError::TooLarge { what: "constants" })?;
                Ok::<_, PlanError>(self.constant(bind, "w", source, (dtype, rows, cols)))
            };
            let weight = panels(RecipeStep::Levels, DType::I8, cols)?;
            let scales = panels(RecipeStep::Scales, DType::Bf16, cols.div_ceil(BLOCK_TERMS))?;
            return Ok(Sum { weight, row, scales: Some(scales) });
        }
        let too_large = PlanError::TooLarge { what: "constants" };
        let shape = layout.shape((outputs, cols), dtype);
        let shape =
            shape.and_then(|(rows, cols)| Some((rows.checked_mul(copies)?, cols))).ok_or(too_large)?;
        match layout {
            WeightLayout::Rows | WeightLayout::Levels => {}
            WeightLayout::Columns => steps.push(RecipeStep::Transpose),
            WeightLayout::Panels => {
                steps.push(RecipeStep::Panels { outputs, terms: panel_terms(dtype) });
            }
            WeightLayout::Swizzled => steps.push(RecipeStep::Swizzled { outputs }),
        }
        steps.extend(stacked);
        let source = match steps.as_slice() {
            [RecipeStep::Weight { name, .. }] => ConstantSource::Weight { name: name.clone() },
            _ => ConstantSource::Recipe { steps },
        };
        let weight = self.constant(bind, "w", source, (dtype, shape.0, shape.1));
        Ok(Sum::of(weight, row))
    }

    /// The output of a weight that is the first of those that a sum takes.
    pub(super) fn first_output(&self, value: Value) -> u32 {
        let (mut value, mut row) = (value, 0u32);
        loop {
            // What is no constant has no outputs to count.
            let OpKind::Constant(constant) = OpKind::of(self.graph.op(value)) else { return row };
            match constant {
                Constant::Rows { start, .. } => row = row.saturating_add(start),
                Constant::Weight
                | Constant::Fill { .. }
                | Constant::Stack { .. }
                | Constant::FoldGain
                | Constant::FoldLinear
                | Constant::FoldBias
                | Constant::OffsetGain { .. } => {}
            }
            match self.graph.operands(value).first() {
                Some(operand) => value = *operand,
                None => return row,
            }
        }
    }

    fn shape(&self, value: Value) -> Result<(u32, u32), PlanError> {
        match self.graph.ty(value).as_tensor() {
            Some((_, &[Dim::Fixed(len)])) => Ok((1, len)),
            Some((_, &[Dim::Fixed(rows), Dim::Fixed(cols)])) => Ok((rows, cols)),
            _ => Err(self.unsupported("take a weight of this rank", value)),
        }
    }

    /// The tensor of the weights file that a constant begins with.
    fn tensor_of(&self, value: Value) -> Value {
        let mut value = value;
        while let Some(operand) = self.graph.operands(value).first() {
            value = *operand;
        }
        value
    }

    /// How many tensors a constant begins with, if they are a stack.
    pub(super) fn stack_of(&self, value: Value) -> Option<u32> {
        if let Op::WeightStack { count, .. } = self.graph.op(self.tensor_of(value)) {
            return Some(*count);
        }
        None
    }

    /// How a constant is made.
    fn recipe(&self, value: Value) -> Result<Vec<RecipeStep>, PlanError> {
        // From the result to the tensor: the reverse of the order in which it is made.
        let mut chain = vec![value];
        while let Some(operand) = chain.last().and_then(|last| self.graph.operands(*last).first().copied()) {
            chain.push(operand);
            if chain.len() > recipe::MAX_STEPS {
                return Err(PlanError::TooLarge { what: "recipes of constants" });
            }
        }
        let stacked = self.stack_of(value).map(|count| RecipeStep::Stacked { count });
        let mut steps = Vec::with_capacity(chain.len() + 1);
        for value in chain.into_iter().rev() {
            let OpKind::Constant(constant) = OpKind::of(self.graph.op(value)) else {
                return Err(self.unsupported("take anything but a weight here", value));
            };
            let step = match constant {
                Constant::Weight | Constant::Stack { .. } => self.tensor(value)?,
                Constant::Fill { value: element } => {
                    let (rows, cols) = self.shape(value)?;
                    RecipeStep::Fill { value: element, rows, cols }
                }
                // Rows of the whole are not rows of each.
                Constant::Rows { .. } if stacked.is_some() => {
                    return Err(self.unsupported("take some rows of a stack of weights", value));
                }
                Constant::Rows { start, len } => RecipeStep::Rows { start, len },
                Constant::FoldGain => {
                    let (gain, offset) = self.gain(value)?;
                    RecipeStep::FoldGain { gain, offset }
                }
                Constant::FoldLinear => {
                    let [_, before] = self.operands(value)?;
                    RecipeStep::FoldLinear { before: self.recipe(before)? }
                }
                Constant::FoldBias => self.folded_bias(value)?,
                Constant::OffsetGain { by } => RecipeStep::Offset { by },
            };
            steps.push(step);
        }
        steps.extend(stacked);
        Ok(steps)
    }

    /// The step that takes a bias through a weight.
    fn folded_bias(&self, fold: Value) -> Result<RecipeStep, PlanError> {
        let mut biases = self.graph.operands(fold).into_iter().skip(1).map(|bias| self.recipe(bias));
        let bias = biases.next().transpose()?.unwrap_or_default();
        Ok(RecipeStep::FoldBias { bias, on: biases.next().transpose()? })
    }

    /// The step that takes a tensor of the weights file.
    fn tensor(&self, value: Value) -> Result<RecipeStep, PlanError> {
        let (Op::Weight { name, shape } | Op::WeightStack { name, shape, .. }) = self.graph.op(value) else {
            return Err(self.internal("this is not a tensor of the weights file", value));
        };
        let cols = shape.0.last().copied().unwrap_or_default();
        Ok(RecipeStep::Weight { name: name.0.to_string(), cols })
    }

    /// The name of the vector that is folded into a weight, and what is added to it.
    fn gain(&self, fold: Value) -> Result<(String, Option<F64>), PlanError> {
        let operands = self.graph.operands(fold);
        let (mut gain, mut offset) = (operands.get(1).copied(), None);
        if let Some(Op::OffsetGain { by }) = gain.map(|gain| self.graph.op(gain)) {
            offset = Some(*by);
            gain = gain.and_then(|gain| self.graph.operands(gain).first().copied());
        }
        match gain.map(|gain| self.graph.op(gain)) {
            Some(Op::Weight { name, .. }) => Ok((name.0.to_string(), offset)),
            _ => Err(self.unsupported("fold in anything but a vector of the weights file", fold)),
        }
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

//! Matmuls with their epilogues, maps, copies.

use std::collections::BTreeMap;

use skipc_artifact::target::DType;
use skipc_ir::{Op, Type, Value};

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::fuse::{Backing, Group, MatmulPart, Work};
use crate::kernel::{
    Access, Body, Gemm, Grouped, NARROW_COLS, PANEL_COLS, Part, Rows, Rowwise, Shift, Slot, Sum, View,
    WeightLayout,
};
use crate::op_kind::{self, Elementwise, OpKind};
use crate::pointwise::{Binary, Inst, Pointwise, Reg, Store};
use crate::recipe::BF16_TERMS;

/// A pointwise program while it is made.
#[derive(Default)]
struct Program {
    code: Vec<Inst>,
    regs: BTreeMap<Value, Reg>,
    /// The sum of each matmul that is one sum.
    sums: BTreeMap<Value, u32>,
    /// Columns of its elements.
    width: u32,
}

impl Program {
    fn push(&mut self, inst: Inst) -> Reg {
        self.code.push(inst);
        Reg((self.code.len() - 1) as u32)
    }
}

impl Ctx<'_> {
    /// A group of a matmul or of pointwise ops, with a scatter at its end or without.
    pub(super) fn expression(&mut self, group: &Group) -> Result<(), PlanError> {
        let Some(last) = group.last() else { return Ok(()) };
        if let (Some(scatter), [base, ..]) = (group.scatter(self.graph), self.graph.operands(last).as_slice())
        {
            let base = self.groups.backing(self.graph, *base);
            let to = if self.order.in_place.contains(&scatter) {
                let to = self.buffer_of(base.base)?;
                self.place[scatter.index()] = Some(to);
                to
            } else {
                let to = self.result(scatter)?;
                if !self.order.covered.contains(&scatter) {
                    self.copy(group, base, to)?;
                }
                to
            };
            return self.compute(group, &[(scatter, to)]);
        }
        let results: Vec<(Value, u32)> = group
            .results
            .iter()
            .map(|result| Ok((*result, self.result(*result)?)))
            .collect::<Result<_, PlanError>>()?;
        self.compute(group, &results)
    }

    /// Copies rows and columns to a dense buffer, as many columns as that has.
    pub(super) fn copy(&mut self, group: &Group, backing: Backing, to: u32) -> Result<(), PlanError> {
        let rows = self.graph.ty(backing.set.unwrap_or(backing.base)).rows();
        let mut bind = self.bind(rows, backing.base)?;
        let from = self.view(&mut bind, "x", backing)?;
        let slot = self.written(&mut bind, "out", to);
        let code = vec![Inst::Load(from)];
        let stores = vec![Store { to: View::dense(slot), value: Reg(0) }];
        let cols = self.buffers[to as usize].cols;
        let program = Pointwise { code, stores };
        self.step(group, bind, Body::Rowwise(Rowwise::Map { cols, program }));
        Ok(())
    }

    /// The kernel that computes all values of the group and stores the results.
    fn compute(&mut self, group: &Group, results: &[(Value, u32)]) -> Result<(), PlanError> {
        let Some((first, _)) = results.first() else { return Ok(()) };
        let rows = if let Op::Scatter {} = self.graph.op(*first) {
            let [_, rows, _] = self.operands(*first)?;
            self.graph.ty(rows).rows()
        } else {
            self.graph.ty(*first).rows()
        };
        let mut bind = self.bind(rows, *first)?;
        let body = match &group.work {
            Work::Gemm(matmuls) => {
                let gemm = self.gemm(&mut bind, matmuls, results)?;
                match matmuls.first().filter(|matmul| matmul.is_grouped(self.graph)) {
                    Some(matmul) => Body::Grouped(self.grouped(&mut bind, matmul, gemm)?),
                    None => Body::Gemm(gemm),
                }
            }
            _ => {
                let program =
                    self.program(&mut bind, (&group.values, *first), Program::default(), results)?;
                Body::Rowwise(Rowwise::Map { cols: self.graph.ty(*first).cols(), program })
            }
        };
        self.step(group, bind, body);
        Ok(())
    }

    /// Matmuls of one operand: a part each.
    fn gemm(
        &mut self,
        bind: &mut Bind,
        matmuls: &[MatmulPart],
        results: &[(Value, u32)],
    ) -> Result<Gemm, PlanError> {
        let mut gemm: Option<Gemm> = None;
        for matmul in matmuls {
            let Some(sum) = matmul.sums.first() else { continue };
            let Some(x) = self.graph.operands(*sum).first().copied() else {
                return Err(self.internal("a matmul has a left operand", *sum));
            };
            let of_partition = self
                .groups
                .backing(self.graph, x)
                .set
                .is_some_and(|set| matches!(self.graph.ty(set), Type::Partition { .. }));
            if of_partition && !matmul.is_grouped(self.graph) {
                // Kernels take the list of their rows to ascend.
                return Err(self.unsupported("multiply rows of a partition with one weight", *sum));
            }
            let operand = self.operand(bind, "a", x)?;
            let k = self.graph.ty(x).cols();
            let part = self.part(bind, matmul, x, results)?;
            gemm.get_or_insert(Gemm { a: operand, k, parts: Vec::new() }).parts.push(part);
        }
        let first = results.first().map(|(value, _)| *value);
        match (gemm, first) {
            (Some(gemm), _) => Ok(gemm),
            (None, Some(value)) => Err(self.internal("a matmul has sums", value)),
            (None, None) => Err(PlanError::TooLarge { what: "matmuls without results" }),
        }
    }

    /// A matmul over the segments of a partition: its weights and biases have rows for each.
    fn grouped(&mut self, bind: &mut Bind, matmul: &MatmulPart, gemm: Gemm) -> Result<Grouped, PlanError> {
        let Some(sum) = matmul.sums.first().copied() else {
            return Err(PlanError::TooLarge { what: "matmuls without sums" });
        };
        let partition = self.graph.operands(sum).get(2).copied();
        let Some((value, &Type::Partition { parts, .. })) =
            partition.map(|partition| (partition, self.graph.ty(partition)))
        else {
            return Err(self.internal("a grouped matmul has a partition", sum));
        };
        let ends = self.set(value)?.ends;
        let ends = ends.ok_or_else(|| self.internal("a partition has ends", value))?;
        let ends = bind.slot("ends", self.arg(ends), Access::Read);
        let mut shifts = Vec::new();
        let of_sums = gemm.parts.iter().flat_map(|part| &part.sums);
        let weights = of_sums.flat_map(|sum| std::iter::once(sum.weight).chain(sum.scales));
        let mut slots: Vec<Slot> = weights.collect();
        for sum in &matmul.sums {
            if let Some(bias) = self.graph.operands(*sum).get(3) {
                // It is bound already.
                slots.push(self.weight(bind, "bias", *bias, DType::F32)?);
            }
        }
        for slot in slots {
            let Some(rows) = self.constants.rows(bind.arg(slot)) else {
                return Err(self.internal("weights of a grouped matmul are constants", sum));
            };
            let shift = Shift { slot, rows: rows / parts };
            if !shifts.contains(&shift) {
                shifts.push(shift);
            }
        }
        Ok(Grouped { gemm, segments: parts, ends, shifts })
    }

    fn is_parameter(&self, weight: Value) -> bool {
        OpKind::of(self.graph.op(weight)) == OpKind::Parameter
    }

    /// Whether a weight makes scores that something is decided by.
    fn decides(&self, weight: Value) -> bool {
        self.graph.users(weight).iter().any(|user| matches!(self.graph.op(*user), Op::RouterLogits {}))
    }

    fn part(
        &mut self,
        bind: &mut Bind,
        matmul: &MatmulPart,
        x: Value,
        results: &[(Value, u32)],
    ) -> Result<Part, PlanError> {
        let dtype = self.buffers[self.buffer_of(self.groups.backing(self.graph, x).base)? as usize].dtype;
        let mut program = Program::default();
        let mut sums = Vec::new();
        let n = matmul.sums.first().map_or(0, |sum| self.graph.ty(*sum).cols());
        let weight_of = |ctx: &Self, sum: &Value| ctx.graph.operands(*sum).get(1).copied();
        // What decides is accurate to f32: one bf16 weight becomes several whose sum it is. One that trains is f32.
        let is_split = |ctx: &Self, sum: &Value| {
            let trains = weight_of(ctx, sum).is_some_and(|weight| ctx.is_parameter(weight));
            dtype == DType::Bf16 && !trains && matches!(ctx.graph.op(*sum), Op::RouterLogits {})
        };
        let n_terms = |sum: &Value| if is_split(self, sum) { BF16_TERMS } else { 1 };
        let n_sums: u32 = matmul.sums.iter().map(n_terms).sum();
        let is_narrow = n.saturating_mul(n_sums) <= NARROW_COLS;
        let decides = |sum: &Value| matches!(self.graph.op(*sum), Op::RouterLogits {});
        let is = |sum: &Value, kind| OpKind::of(self.graph.op(*sum)) == OpKind::Matmul(kind);
        let transposes = matmul.sums.iter().any(|sum| is(sum, op_kind::Matmul::Transposed));
        let is_parameter = |sum: &Value| weight_of(self, sum).is_some_and(|weight| self.is_parameter(weight));
        let layout = match self.options.layout {
            // The weight as it lies, whose rows are then what factors are over.
            _ if transposes => WeightLayout::Columns,
            // What trains lies as in the weight file.
            _ if matmul.sums.iter().any(is_parameter) => WeightLayout::Rows,
            _ if is_narrow || matmul.sums.iter().any(|sum| is_split(self, sum)) => WeightLayout::Rows,
            // Steps of a decider are over f32 where layers are in bf16, and in 32 bits where weights are in 8.
            WeightLayout::Swizzled if dtype == DType::F32 => WeightLayout::Rows,
            WeightLayout::Levels if matmul.sums.iter().any(decides) => WeightLayout::Columns,
            layout => layout,
        };
        // A sum that begins within a panel would have to take it apart.
        let begins_within = |sum: &Value| {
            let weight = self.graph.operands(*sum).get(1).copied();
            weight.is_some_and(|weight| !self.first_output(weight).is_multiple_of(PANEL_COLS))
        };
        let layout = match layout {
            WeightLayout::Panels | WeightLayout::Levels if matmul.sums.iter().any(begins_within) => {
                WeightLayout::Columns
            }
            layout => layout,
        };
        for sum in &matmul.sums {
            let operands = self.graph.operands(*sum);
            let Some(weight) = operands.get(1) else {
                return Err(self.internal("a matmul has a weight", *sum));
            };
            let is_split = is_split(self, sum);
            let mut reg = None;
            for term in 0..if is_split { BF16_TERMS } else { 1 } {
                sums.push(match transposes {
                    true => {
                        let dtype = if self.decides(*weight) { DType::F32 } else { self.options.dtype };
                        Sum::of(self.weight(bind, "w", *weight, dtype)?, 0)
                    }
                    false => {
                        let is_f32 = self.is_parameter(*weight) && self.decides(*weight);
                        let dtype = if is_f32 { DType::F32 } else { dtype };
                        self.sum_weight(bind, *weight, (dtype, layout), is_split.then_some(term))?
                    }
                });
                let acc = program.push(Inst::Acc(sums.len() as u32 - 1));
                reg = Some(match reg {
                    Some(reg) => program.push(Inst::Binary(Binary::Add, reg, acc)),
                    None => acc,
                });
            }
            program.sums.insert(*sum, sums.len() as u32 - 1);
            if let (Op::GroupedMatmul {}, Some(bias)) = (self.graph.op(*sum), operands.get(3)) {
                let bias = self.weight(bind, "bias", *bias, DType::F32)?;
                let bias = program.push(Inst::LoadCol(bias));
                reg = reg.map(|reg| program.push(Inst::Binary(Binary::Add, reg, bias)));
            }
            reg.map(|reg| program.regs.insert(*sum, reg));
        }
        let results: Vec<(Value, u32)> =
            results.iter().copied().filter(|(value, _)| matmul.values.contains(value)).collect();
        let epilogue = self.program(bind, (&matmul.values, matmul.result), program, &results)?;
        Ok(Part { n, layout, sums, epilogue })
    }

    /// The program that computes these values, of which some are known, and stores the results.
    fn program(
        &mut self,
        bind: &mut Bind,
        (values, result): (&[Value], Value),
        mut program: Program,
        results: &[(Value, u32)],
    ) -> Result<Pointwise, PlanError> {
        program.width = self.graph.ty(result).cols();
        for value in values {
            if !program.regs.contains_key(value) && !matches!(self.graph.op(*value), Op::Scatter {}) {
                let reg = if let OpKind::Rope(rope) = OpKind::of(self.graph.op(*value)) {
                    self.turn(bind, &mut program, *value, rope)?
                } else {
                    self.instruction(bind, &mut program, *value)?
                };
                program.regs.insert(*value, reg);
            }
        }
        let mut stores = Vec::new();
        for (value, buffer) in results {
            stores.push(self.store(bind, &mut program, *value, *buffer)?);
        }
        Ok(Pointwise { code: program.code, stores })
    }

    /// A rotary embedding of a sum, or of a sum with scaled rows: `x · cos + rotate_half(x) · sin`.
    fn turn(
        &mut self,
        bind: &mut Bind,
        program: &mut Program,
        rope: Value,
        op_kind::Rope { heads, frequencies, .. }: op_kind::Rope,
    ) -> Result<Reg, PlanError> {
        let [x, positions] = self.operands(rope)?;
        let width = self.graph.ty(rope).cols() / heads.max(1);
        let (mut sum, mut scales) = (x, Vec::new());
        while let (Op::ScaleRows {}, &[scaled, scale]) =
            (self.graph.op(sum), self.graph.operands(sum).as_slice())
        {
            scales.push(scale);
            sum = scaled;
        }
        let Some(acc) = program.sums.get(&sum).copied() else {
            return Err(self.internal("what turns is a sum with scaled rows", rope));
        };
        let mut rotated = program.push(Inst::AccRotated { sum: acc, width });
        for scale in scales.into_iter().rev() {
            let scale = self.load(bind, program, scale)?;
            rotated = program.push(Inst::Binary(Binary::Mul, rotated, scale));
        }
        let straight = self.load(bind, program, x)?;
        let index = self.operand(bind, "positions", positions)?;
        let (cos, sin) = self.angles(bind, frequencies, width);
        let cos = program.push(Inst::LoadAt { table: cos, index });
        let cos = program.push(Inst::Binary(Binary::Mul, straight, cos));
        let sin = program.push(Inst::LoadAt { table: sin, index });
        let sin = program.push(Inst::Binary(Binary::Mul, rotated, sin));
        Ok(program.push(Inst::Binary(Binary::Add, cos, sin)))
    }

    /// `x · (1 − f) + class · f` with `f` 1 at position 0 and 0 elsewhere, in such an order that nothing rounds.
    fn class_token(
        &mut self,
        bind: &mut Bind,
        program: &mut Program,
        value: Value,
    ) -> Result<Reg, PlanError> {
        let [x, class, positions] = self.operands(value)?;
        let x = self.load(bind, program, x)?;
        let index = self.operand(bind, "positions", positions)?;
        let table = self.beginning(bind);
        let begins = program.push(Inst::LoadAt { table, index });
        let class = self.weight(bind, "class", class, DType::F32)?;
        let class = program.push(Inst::LoadCol(class));
        let away = program.push(Inst::Binary(Binary::Mul, x, begins));
        let rest = program.push(Inst::Binary(Binary::Sub, x, away));
        let class = program.push(Inst::Binary(Binary::Mul, class, begins));
        Ok(program.push(Inst::Binary(Binary::Add, rest, class)))
    }

    fn instruction(
        &mut self,
        bind: &mut Bind,
        program: &mut Program,
        value: Value,
    ) -> Result<Reg, PlanError> {
        let OpKind::Elementwise(function) = OpKind::of(self.graph.op(value)) else {
            return Err(self.internal("this is not an elementwise function", value));
        };
        let inst = match function {
            Elementwise::Widen => {
                let [x] = self.operands(value)?;
                return self.load(bind, program, x);
            }
            Elementwise::Unary(function) => {
                let [x] = self.operands(value)?;
                Inst::Unary(function, self.load(bind, program, x)?)
            }
            Elementwise::Binary(function) => self.binary(bind, program, function, value)?,
            Elementwise::RowScale => self.binary(bind, program, Binary::Mul, value)?,
            Elementwise::ForceFirst { first } => {
                let [scores, positions] = self.operands(value)?;
                let scores = self.load(bind, program, scores)?;
                let index = self.operand(bind, "positions", positions)?;
                let table = self.forced(bind, first);
                let forced = program.push(Inst::LoadAt { table, index });
                Inst::Binary(Binary::Add, scores, forced)
            }
            Elementwise::ClassToken => return self.class_token(bind, program, value),
            Elementwise::RepeatRow => {
                let [row, _] = self.operands(value)?;
                Inst::LoadCol(self.weight(bind, "row", row, DType::F32)?)
            }
            Elementwise::Bias => {
                let [x, bias] = self.operands(value)?;
                let x = self.load(bind, program, x)?;
                let bias = self.weight(bind, "bias", bias, DType::F32)?;
                let bias = program.push(Inst::LoadCol(bias));
                Inst::Binary(Binary::Add, x, bias)
            }
        };
        Ok(program.push(inst))
    }

    fn binary(
        &mut self,
        bind: &mut Bind,
        program: &mut Program,
        function: Binary,
        value: Value,
    ) -> Result<Inst, PlanError> {
        let [a, b] = self.operands(value)?;
        let a = self.load(bind, program, a)?;
        Ok(Inst::Binary(function, a, self.load(bind, program, b)?))
    }

    /// The register of an operand, loaded from memory if the program does not compute it.
    fn load(&mut self, bind: &mut Bind, program: &mut Program, value: Value) -> Result<Reg, PlanError> {
        if let Some(reg) = program.regs.get(&value) {
            return Ok(*reg);
        }
        let view = self.operand(bind, "x", value)?;
        let is_element = self.graph.ty(value).cols() == program.width;
        let reg = program.push(if is_element { Inst::Load(view) } else { Inst::LoadRow(view) });
        program.regs.insert(value, reg);
        Ok(reg)
    }

    fn store(
        &mut self,
        bind: &mut Bind,
        program: &mut Program,
        value: Value,
        buffer: u32,
    ) -> Result<Store, PlanError> {
        let (kept, rows) = if let Op::Scatter {} = self.graph.op(value) {
            let [_, kept, set] = self.operands(value)?;
            let set = self.set(set)?;
            let Slot(rows) = bind.slot("rows", self.arg(set.rows), Access::Read);
            (self.load(bind, program, kept)?, Rows::Listed(Slot(rows)))
        } else {
            let Some(reg) = program.regs.get(&value) else {
                return Err(self.internal("the program does not compute it", value));
            };
            (*reg, Rows::Dense)
        };
        let slot = self.written(bind, "out", buffer);
        Ok(Store { to: View { slot, rows, col: 0 }, value: kept })
    }
}

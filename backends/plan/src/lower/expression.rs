//! Matmuls with their epilogues, maps, copies.

use std::collections::BTreeMap;

use skipc_ir::{Op, Value};

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::fuse::{Group, Source, Work};
use crate::kernel::{Access, Body, Gemm, Rows, Rowwise, Slot, View};
use crate::pointwise::{Binary, Inst, Pointwise, Reg, Store, Unary};

/// A pointwise program while it is made.
#[derive(Default)]
struct Program {
    code: Vec<Inst>,
    regs: BTreeMap<Value, Reg>,
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
            let base = self.groups.source(self.graph, *base);
            let to = if self.order.in_place.contains(&scatter) {
                let to = self.buffer_of(base.base)?;
                self.place[scatter.index()] = Some(to);
                to
            } else {
                let to = self.result(scatter);
                self.copy(group, base, to)?;
                to
            };
            return self.compute(group, &[(scatter, to)]);
        }
        let results: Vec<(Value, u32)> =
            group.results.iter().map(|result| (*result, self.result(*result))).collect();
        self.compute(group, &results)
    }

    /// Copies rows and columns to a dense buffer, as many columns as that has.
    pub(super) fn copy(&mut self, group: &Group, source: Source, to: u32) -> Result<(), PlanError> {
        let rows = self.graph.ty(source.set.unwrap_or(source.base)).rows();
        let mut bind = self.bind(rows, source.base)?;
        let from = self.view(&mut bind, "x", source)?;
        let slot = self.written(&mut bind, "out", to);
        let code = vec![Inst::Load(from)];
        let stores = vec![Store { to: View { slot, rows: Rows::Dense, col: 0 }, value: Reg(0) }];
        let cols = self.buffers[to as usize].cols;
        let program = Pointwise { code, stores };
        self.step(group, bind, Body::Rowwise(Rowwise::Map { cols, program }));
        Ok(())
    }

    /// The kernel that computes all values of the group and stores the results.
    fn compute(&mut self, group: &Group, results: &[(Value, u32)]) -> Result<(), PlanError> {
        let Some((first, _)) = results.first() else { return Ok(()) };
        let rows = match (self.graph.op(*first), self.graph.operands(*first).as_slice()) {
            (Op::Scatter {}, [_, rows, _]) => self.graph.ty(*rows).rows(),
            _ => self.graph.ty(*first).rows(),
        };
        let mut bind = self.bind(rows, *first)?;
        let mut program = Program { width: self.graph.ty(*first).cols(), ..Program::default() };
        let gemm = match group.work {
            Work::Gemm { first, second } => Some(self.sums(&mut bind, &mut program, (first, second))?),
            _ => None,
        };
        for value in &group.values {
            if !program.regs.contains_key(value) && !matches!(self.graph.op(*value), Op::Scatter {}) {
                let reg = self.instruction(&mut bind, &mut program, *value)?;
                program.regs.insert(*value, reg);
            }
        }
        let mut stores = Vec::new();
        for (value, buffer) in results {
            stores.push(self.store(&mut bind, &mut program, *value, *buffer)?);
        }
        let program = Pointwise { code: program.code, stores };
        let body = match gemm {
            Some(gemm) => Body::Gemm(Gemm { epilogue: program, ..gemm }),
            None => Body::Rowwise(Rowwise::Map { cols: self.graph.ty(*first).cols(), program }),
        };
        self.step(group, bind, body);
        Ok(())
    }

    /// The matmuls of a group: its left operand and weights; their sums become the first registers.
    fn sums(
        &mut self,
        bind: &mut Bind,
        program: &mut Program,
        (first, second): (Value, Option<Value>),
    ) -> Result<Gemm, PlanError> {
        let operands = self.graph.operands(first);
        let Some(x) = operands.first() else {
            return Err(self.internal("a matmul has a left operand", first));
        };
        let a = self.operand(bind, "a", *x)?;
        let dtype = self.buffers[self.buffer_of(self.groups.source(self.graph, *x).base)? as usize].dtype;
        let mut weights = Vec::new();
        for (idx, sum) in std::iter::once(first).chain(second).enumerate() {
            let operands = self.graph.operands(sum);
            let Some(weight) = operands.get(1) else {
                return Err(self.internal("a matmul has a weight", sum));
            };
            weights.push(self.weight(bind, "w", *weight, dtype)?);
            let reg = program.push(Inst::Acc(idx as u32));
            program.regs.insert(sum, reg);
        }
        let (k, n) = (self.graph.ty(*x).cols(), self.graph.ty(first).cols());
        Ok(Gemm { a, k, n, weights, epilogue: Pointwise::default() })
    }

    fn instruction(
        &mut self,
        bind: &mut Bind,
        program: &mut Program,
        value: Value,
    ) -> Result<Reg, PlanError> {
        let operands = self.graph.operands(value);
        let inst = match (self.graph.op(value), operands.as_slice()) {
            (Op::AddBias {}, [x, bias]) => {
                let x = self.load(bind, program, *x)?;
                let bias = self.weight(bind, "bias", *bias, skipc_artifact::target::DType::F32)?;
                let bias = program.push(Inst::LoadCol(bias));
                Inst::Binary(Binary::Add, x, bias)
            }
            (op, [x]) => {
                let function = match op {
                    Op::Gelu {} => Unary::Gelu,
                    Op::Relu {} => Unary::Relu,
                    Op::Silu {} => Unary::Silu,
                    Op::Sigmoid {} => Unary::Sigmoid,
                    Op::OneMinus {} => Unary::OneMinus,
                    Op::Scale { by } => Unary::Scale(*by),
                    _ => return Err(self.internal("this is no function of one number", value)),
                };
                Inst::Unary(function, self.load(bind, program, *x)?)
            }
            (op, [a, b]) => {
                let function = match op {
                    Op::Add {} => Binary::Add,
                    Op::Sub {} => Binary::Sub,
                    Op::Mul {} | Op::ScaleRows {} => Binary::Mul,
                    _ => return Err(self.internal("this is no function of two numbers", value)),
                };
                let a = self.load(bind, program, *a)?;
                Inst::Binary(function, a, self.load(bind, program, *b)?)
            }
            _ => return Err(self.internal("this is no pointwise op", value)),
        };
        Ok(program.push(inst))
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
        let (kept, rows) = match (self.graph.op(value), self.graph.operands(value).as_slice()) {
            (Op::Scatter {}, [_, kept, set]) => {
                let set = self.set(*set)?;
                let Slot(rows) = bind.slot("rows", self.arg(set.rows), Access::Read);
                (self.load(bind, program, *kept)?, Rows::Listed(Slot(rows)))
            }
            _ => match program.regs.get(&value) {
                Some(reg) => (*reg, Rows::Dense),
                None => return Err(self.internal("the program does not compute it", value)),
            },
        };
        let slot = self.written(bind, "out", buffer);
        Ok(Store { to: View { slot, rows, col: 0 }, value: kept })
    }
}

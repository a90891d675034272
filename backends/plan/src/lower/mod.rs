//! Groups of ops to kernels, buffers and steps.

mod along;
mod bind;
mod expression;
mod rows;
mod sets;
mod states;
mod tables;
#[cfg(test)]
mod tests;
mod training;

use std::collections::BTreeMap;

use indexmap::IndexSet;
use skipc_artifact::interface::{Binding, Interface, Role, RouterPorts, Shape, Sizes};
use skipc_artifact::program::{ArenaPlace, Arg, Buffer, PAGE_ROWS, RowBound, State, Step, Storage};
use skipc_artifact::target::DType;
use skipc_ir::text::Numbering;
use skipc_ir::{Dim, Elem, Graph, Op, Port, SetSym, Type, Value};

use crate::error::PlanError;
use crate::fuse::{Group, Groups, Work};
use crate::kernel::Kernel;
use crate::layout;
use crate::op_kind::{Decision, OpKind};
use crate::order::Order;
use crate::plan::{Options, Plan, StepSource};
use crate::uses::Uses;
use bind::Bind;
use sets::{Decided, SetBuffers};
pub(crate) use tables::Constants;

/// Plans the graph.
pub(crate) fn lower(graph: &Graph, options: &Options, fuse: bool) -> Result<Plan, PlanError> {
    check_options(graph, options)?;
    let numbering = Numbering::new(graph);
    check_inputs(graph, &numbering)?;
    let uses = Uses::new(graph, &numbering);
    let groups = Groups::new(graph, &uses, &numbering, fuse)?;
    let order = Order::new(graph, &uses, &groups);
    let mut ctx = Ctx::new(graph, options, &numbering, &groups, &order);
    for idx in &order.groups {
        ctx.group(&groups.list[*idx])?;
    }
    ctx.finish()
}

/// Largest `max_tokens`: what artefacts take.
const MAX_TOKENS: u32 = 1 << 30;

fn check_options(graph: &Graph, options: &Options) -> Result<(), PlanError> {
    let refuse =
        |option, got: String, wanted: &str| Err(PlanError::Option { option, got, wanted: wanted.to_owned() });
    let Options { dtype, max_tokens, max_positions, logits, .. } = options;
    if !matches!(dtype, DType::F32 | DType::Bf16) {
        return refuse("dtype", dtype.to_string(), "f32 or bf16");
    }
    if !(1..=MAX_TOKENS).contains(max_tokens) {
        return refuse("max_tokens", max_tokens.to_string(), "from 1 to 2^30");
    }
    if *max_positions == 0 {
        return refuse("max_positions", max_positions.to_string(), "at least 1");
    }
    let pages = graph.signature().inputs.into_iter().find(|port| port.role == Role::Pages);
    if let Some(cols) = pages.map(|port| port.ty.cols())
        && cols != max_positions.div_ceil(PAGE_ROWS)
    {
        let wanted = format!("{cols} pages of {PAGE_ROWS}, as the graph has them");
        return refuse("max_positions", max_positions.to_string(), &wanted);
    }
    match graph.result(&Role::Logits).map(|logits| graph.ty(logits).cols()) {
        Some(cols) if cols != *logits => {
            refuse("logits", logits.to_string(), &format!("{cols}, the columns of the logits"))
        }
        Some(_) | None => Ok(()),
    }
}

/// An input has a row for each token, so many as its type says, or the rows of a set that the caller gives, too: nobody
/// knows before the step how many rows others have.
fn check_inputs(graph: &Graph, numbering: &Numbering) -> Result<(), PlanError> {
    let inputs = graph.signature().inputs;
    let is_given = |sym: SetSym| {
        let is_set = |port: &Port| matches!(port.ty, Type::Set { sym: other, .. } if other == sym);
        inputs.iter().any(|port| matches!(port.role, Role::Input { .. }) && is_set(port))
    };
    let refused = |value: Value| {
        let Op::Input { port: Port { role: Role::Input { .. }, ty } } = graph.op(value) else { return None };
        match ty.as_tensor()?.1.first()? {
            Dim::Count(sym) if !is_given(*sym) => {
                Some((value, "take an input over the rows of a set that the model decides"))
            }
            Dim::Cached => Some((value, "take an input with a row for each token of the caches")),
            Dim::Count(_) | Dim::Tokens | Dim::Fixed(_) => None,
        }
    };
    match graph.order().into_iter().find_map(refused) {
        Some((value, what)) => Err(PlanError::Unsupported { what, place: numbering.place(graph, value) }),
        None => Ok(()),
    }
}

struct Ctx<'a> {
    graph: &'a Graph,
    options: &'a Options,
    numbering: &'a Numbering,
    groups: &'a Groups,
    order: &'a Order,
    kernels: IndexSet<Kernel>,
    constants: Constants,
    buffers: Vec<Buffer>,
    /// The buffer of each value in memory, by [`Value::index`].
    place: Vec<Option<u32>>,
    sets: BTreeMap<SetSym, SetBuffers>,
    steps: Vec<Step>,
    sources: Vec<StepSource>,
    interface: Interface,
    states: Vec<State>,
    /// Whether a set so far was ranked over all sequences.
    ranks_batch: bool,
}

impl<'a> Ctx<'a> {
    fn new(
        graph: &'a Graph,
        options: &'a Options,
        numbering: &'a Numbering,
        groups: &'a Groups,
        order: &'a Order,
    ) -> Ctx<'a> {
        let mut ctx = Ctx {
            graph,
            options,
            numbering,
            groups,
            order,
            kernels: IndexSet::new(),
            constants: Constants::default(),
            buffers: Vec::new(),
            place: vec![None; graph.bound()],
            sets: BTreeMap::new(),
            steps: Vec::new(),
            sources: Vec::new(),
            interface: Interface::default(),
            states: Vec::new(),
            ranks_batch: false,
        };
        let roles =
            [Role::TokenCount, Role::Tokens, Role::Positions, Role::Sequences, Role::UseForced, Role::Logits];
        let takes_rows = graph.signature().inputs.iter().any(|port| port.role == Role::Rows);
        // A function over states alone takes no tokens.
        let has_logits = graph.result(&Role::Logits).is_some();
        let has = |role: &Role| match role {
            Role::Tokens if takes_rows => false,
            Role::Tokens | Role::Positions | Role::Sequences => {
                has_logits || graph.signature().inputs.iter().any(|port| port.role == *role)
            }
            Role::Logits => has_logits,
            Role::UseForced => {
                has_logits || graph.results().any(|(role, _)| matches!(role, Role::Decision { .. }))
            }
            _ => true,
        };
        let roles = roles.into_iter().filter(has);
        roles.for_each(|role| ctx.role(role));
        ctx.inputs();
        ctx.states();
        ctx
    }

    /// Gives a port whose role says its shape its buffer.
    fn role(&mut self, role: Role) {
        let Options { logits, max_positions, .. } = *self.options;
        if let Some(Shape { dtype, rows, cols }) = role.shape(Sizes { logits, max_positions }) {
            let idx = self.buffer(role.to_string(), dtype, rows, cols);
            self.interface.bind(role, Binding::Buffer(idx));
        }
    }

    /// Gives the ports that not every graph has their buffers.
    fn inputs(&mut self) {
        let is_replayed = |port: &Port| matches!(port.role, Role::ForcedChoices { .. });
        if self.graph.signature().inputs.iter().any(is_replayed) {
            self.role(Role::UseForcedChoices);
        }
        let is_set = |port: &Port| matches!(port.ty, Type::Set { .. });
        let (sets, others): (Vec<Port>, Vec<Port>) =
            self.graph.signature().inputs.into_iter().partition(is_set);
        for Port { role, ty } in sets.into_iter().chain(others) {
            match (&role, ty.as_tensor(), &ty) {
                (Role::Input { name }, _, Type::Set { sym, .. }) => self.given_set(name, *sym),
                (Role::Input { .. }, Some((elem, [Dim::Count(sym), ..])), _) => {
                    let idx = self.buffer(role.to_string(), self.dtype(elem), RowBound::Tokens, ty.cols());
                    if let Some(set) = self.sets.get(sym) {
                        self.interface.bind_rows(role, idx, set.count);
                    }
                }
                (Role::LogitRows, _, Type::Set { sym, .. }) => {
                    self.role(Role::LogitCount);
                    self.role(Role::LogitRows);
                    let ports = [&role, &Role::LogitCount].map(|role| self.interface.buffer(role));
                    if let [Some(rows), Some(count)] = ports {
                        self.sets.insert(*sym, SetBuffers { rows, count, ends: None, decided: None });
                    }
                }
                (
                    Role::Input { .. } | Role::Rows | Role::Pending | Role::ForcedChoices { .. },
                    Some((elem, [rows @ (Dim::Tokens | Dim::Fixed(_)), ..])),
                    _,
                ) => {
                    let rows =
                        if let Dim::Fixed(rows) = rows { RowBound::Fixed(*rows) } else { RowBound::Tokens };
                    let idx = self.buffer(role.to_string(), self.dtype(elem), rows, ty.cols());
                    self.interface.bind(role, Binding::Buffer(idx));
                }
                _ if self.interface.buffer(&role).is_none() => self.role(role),
                _ => {}
            }
        }
    }

    fn group(&mut self, group: &Group) -> Result<(), PlanError> {
        let Some(value) = group.last() else { return Ok(()) };
        match group.work {
            Work::Gemm(_) | Work::Map => self.expression(group),
            Work::Copy => {
                let source = self.groups.copied_backing(self.graph, value);
                let to = self.result(value)?;
                self.copy(group, source, to)
            }
            Work::Logits => {
                let source = self.groups.backing(self.graph, value);
                let to = self.port(&Role::Logits)?;
                self.copy(group, source, to)
            }
            Work::Single(single) => self.single(group, value, single),
            Work::Rope(rope) => self.rope(group, value, rope),
            Work::Route(route) => self.route(group, value, route),
            Work::Update(update) => self.update(group, value, update),
        }
    }

    fn finish(mut self) -> Result<Plan, PlanError> {
        self.gates()?;
        let kernels: Vec<(String, Kernel)> = self
            .kernels
            .into_iter()
            .enumerate()
            .map(|(idx, kernel)| (format!("k{idx:02}_{}", kernel.describe()), kernel))
            .collect();
        let function = layout::lay_out(layout::Parts {
            options: self.options,
            buffers: self.buffers,
            steps: self.steps,
            interface: self.interface,
            ranks_batch: self.ranks_batch,
        })?;
        let constants = self.constants.lay_out()?;
        let mut states = self.states;
        layout::place_states(&mut states)?;
        let (dtype, sources) = (self.options.dtype, self.sources);
        Ok(Plan { dtype, kernels, constants, states, function, sources })
    }

    /// What the host gets of each router: its decisions, and how many rows it wanted if it has a capacity; and of each layer of
    /// experts which choices tokens got.
    fn gates(&mut self) -> Result<(), PlanError> {
        let graph = self.graph;
        let mut limited = Vec::new();
        for (role, value) in graph.results() {
            let router = match *role {
                Role::Logits | Role::State { .. } | Role::PromptState { .. } => continue,
                Role::Result { .. } | Role::Choices { .. } => {
                    self.shown(role, value)?;
                    continue;
                }
                Role::WantedMask { router } => {
                    self.wanted_mask(router, value)?;
                    continue;
                }
                Role::Decision { router } => router,
                Role::Wanted { router } => {
                    limited.push((router, value));
                    continue;
                }
                _ => return Err(self.unsupported("give this to the host", value)),
            };
            let OpKind::Decision(decision) = OpKind::of(graph.op(value)) else {
                return Err(self.unsupported("give this to the host", value));
            };
            let ports = match decision {
                Decision::Always(decision) => RouterPorts::Constant(decision),
                Decision::Set => {
                    let [set] = self.operands(value)?;
                    let (SetBuffers { count, .. }, Decided { mask, forced }) =
                        (self.set(set)?, self.decided(set)?);
                    RouterPorts::Routed { decision: mask, forced, executed: count, wanted: None }
                }
            };
            self.interface.bind_router(router, ports);
        }
        for (router, value) in limited {
            let operands = graph.operands(value);
            let (Op::Executed {}, [set]) = (graph.op(value), operands.as_slice()) else {
                return Err(self.unsupported("give this to the host", value));
            };
            if self.interface.buffer(&Role::Decision { router }).is_none() {
                return Err(self.unsupported("limit a constant gate", value));
            }
            let count = self.set(*set)?.count;
            self.interface.bind(Role::Wanted { router }, Binding::Buffer(count));
        }
        Ok(())
    }

    /// What a router wanted, which is replayed beside what it executed.
    fn wanted_mask(&mut self, router: u32, value: Value) -> Result<(), PlanError> {
        let operands = self.graph.operands(value);
        let (Op::Executed {}, [set]) = (self.graph.op(value), operands.as_slice()) else {
            return Err(self.unsupported("give this to the host", value));
        };
        let Decided { mask, forced } = self.decided(*set)?;
        self.interface.bind(Role::WantedMask { router }, Binding::Buffer(mask));
        self.interface.bind(Role::ForcedWanted { router }, Binding::Buffer(forced));
        Ok(())
    }

    /// A result of a name: numbers where they are made, or the mask of a set.
    fn shown(&mut self, role: &Role, value: Value) -> Result<(), PlanError> {
        let idx = match (self.graph.op(value), self.graph.operands(value).as_slice()) {
            (Op::Executed {}, [set]) => self.mask(*set)?,
            _ => self.buffer_of(value)?,
        };
        match self.graph.ty(value).rows() {
            Dim::Count(sym) => {
                let is_of_cache = |value: &Value| matches!(*self.graph.ty(*value), Type::Set { sym: other, of: Dim::Cached } if other == sym);
                if self.graph.order().iter().any(is_of_cache) {
                    return Err(self.unsupported("give rows that waited in a cache to the host", value));
                }
                let set = self.sets.get(&sym).copied();
                let set = set.ok_or_else(|| self.internal("the set is used before it is made", value))?;
                self.interface.bind_rows(role.clone(), idx, set.count);
            }
            Dim::Tokens | Dim::Fixed(_) | Dim::Cached => {
                self.interface.bind(role.clone(), Binding::Buffer(idx));
            }
        }
        Ok(())
    }

    fn buffer(&mut self, name: String, dtype: DType, rows: RowBound, cols: u32) -> u32 {
        let storage = Storage::Step(ArenaPlace::default());
        self.buffers.push(Buffer { name, dtype, rows, cols, storage, live: None });
        (self.buffers.len() - 1) as u32
    }

    /// The buffer of a port that this function has.
    fn port(&self, role: &Role) -> Result<u32, PlanError> {
        self.interface.buffer(role).ok_or_else(|| PlanError::NoPort { role: role.to_string() })
    }

    /// Gives a value its buffer.
    fn result(&mut self, value: Value) -> Result<u32, PlanError> {
        let idx = if self.graph.result(&Role::Logits) == Some(value) && self.is_stored_as_logits(value) {
            self.port(&Role::Logits)?
        } else {
            let ty = self.graph.ty(value);
            let elem = ty.as_tensor().map_or(Elem::Int, |(elem, _)| elem);
            let name = format!("%{} {}", self.numbering.number(value), self.graph.op(value).name());
            let (rows, cols) = match ty.as_tensor() {
                Some((_, [Dim::Fixed(len)])) => (RowBound::Fixed(1), *len),
                Some((_, [Dim::Fixed(rows), ..])) => (RowBound::Fixed(*rows), ty.cols()),
                _ => (RowBound::Tokens, ty.cols()),
            };
            self.buffer(name, self.dtype(elem), rows, cols)
        };
        self.place[value.index()] = Some(idx);
        Ok(idx)
    }

    fn is_stored_as_logits(&self, value: Value) -> bool {
        let maker = self.groups.maker(value).map(|maker| &self.groups.list[maker]);
        maker.is_some_and(|maker| {
            matches!(maker.work, Work::Gemm(_) | Work::Map) && maker.scatter(self.graph).is_none()
        })
    }

    fn dtype(&self, elem: Elem) -> DType {
        match elem {
            Elem::Real => self.options.dtype,
            Elem::F32 => DType::F32,
            Elem::Int => DType::U32,
            Elem::Mask => DType::U8,
        }
    }

    /// The buffer in which a value lies.
    fn buffer_of(&self, value: Value) -> Result<u32, PlanError> {
        let value = match (OpKind::of(self.graph.op(value)), self.graph.operands(value).first()) {
            (OpKind::Parameter, Some(state)) => *state,
            _ => value,
        };
        let idx = if let Op::Input { port } = self.graph.op(value) {
            self.interface.buffer(&port.role)
        } else {
            self.place[value.index()]
        };
        idx.ok_or_else(|| self.internal("the value is used before it is in memory", value))
    }

    fn step(&mut self, group: &Group, bind: Bind, body: crate::kernel::Body) {
        let (kernel, args) = bind.kernel(body);
        let (idx, _) = self.kernels.insert_full(kernel);
        let anchor = match &group.work {
            Work::Gemm(matmuls) => matmuls.iter().flat_map(|matmul| &matmul.sums).next_back().copied(),
            _ => None,
        };
        let origin = anchor.or(group.last()).map(|value| self.graph.origin(value).to_string());
        self.steps.push(Step { kernel: idx as u32, args, origin: origin.unwrap_or_default() });
        let nodes = group.values.iter().map(|value| self.numbering.node(self.graph, *value)).collect();
        self.sources.push(StepSource { nodes });
    }

    fn arg(&self, idx: u32) -> (Arg, DType, u32) {
        let buffer = &self.buffers[idx as usize];
        (Arg::Buffer(idx), buffer.dtype, buffer.cols)
    }

    /// The operands of an op that has so many.
    fn operands<const N: usize>(&self, value: Value) -> Result<[Value; N], PlanError> {
        let operands = self.graph.operands(value);
        operands
            .as_slice()
            .try_into()
            .map_err(|_| self.internal("an op has the operands of its table", value))
    }

    fn internal(&self, what: &'static str, value: Value) -> PlanError {
        PlanError::Internal { what, place: self.numbering.place(self.graph, value) }
    }

    fn unsupported(&self, what: &'static str, value: Value) -> PlanError {
        PlanError::Unsupported { what, place: self.numbering.place(self.graph, value) }
    }
}

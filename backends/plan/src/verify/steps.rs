//! Steps in their order: what each buffer holds when it is read.

use std::collections::{BTreeMap, BTreeSet};

use skipc_artifact::interface::{Direction, Role};
use skipc_artifact::program::{Arg, Extent, RowBound, Step};

use super::Errors;
use super::kernel::{Touch, Touched, check};
use super::memory::share_memory;
use crate::error::{At, Fault};
use crate::kernel::{Access, Body, Kernel, Param, Rows, Select, Slot};
use crate::plan::{ConstantSource, Plan};

/// The rows that a buffer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// As many as this count buffer says.
    Counted(u32),
    /// The first so many.
    First(u32),
    /// All of a cache.
    Cached,
}

/// Checks all steps.
pub(super) fn steps(plan: &Plan, errors: &mut Errors) {
    let interface = &plan.function.interface;
    // All rows of a port: as many as there are tokens, or its own.
    let all_rows = |idx: u32| match plan.function.buffers.get(idx as usize)?.rows {
        RowBound::Fixed(rows) => Some(Held::First(rows)),
        RowBound::Tokens => interface.buffer(&Role::TokenCount).map(Held::Counted),
        RowBound::Cached => Some(Held::Cached),
    };
    // Those of a port: of logits that are not wanted of all tokens, and the list of those tokens, fewer.
    let few = [Role::Logits, Role::LogitRows].map(|role| interface.buffer(&role));
    let logit_count = interface.buffer(&Role::LogitCount).map(Held::Counted);
    let port_rows = |role: &Role, idx: u32| match interface.count(role) {
        Some(count) => Some(Held::Counted(count)),
        None => logit_count.filter(|_| few.contains(&Some(idx))).or_else(|| all_rows(idx)),
    };
    let before = interface.buffers(Direction::In).chain(interface.buffers(Direction::Kept));
    let mut state = State {
        plan,
        touches: plan.kernels.iter().map(|(_, kernel)| check(kernel).touches).collect(),
        held: before.filter_map(|(role, idx)| Some((idx, port_rows(role, idx)?))).collect(),
        from_host: interface.buffers(Direction::In).map(|(_, idx)| idx).collect(),
        sets: BTreeMap::new(),
        lists: BTreeMap::new(),
        rests: BTreeMap::new(),
        parts: BTreeMap::new(),
        faults: Vec::new(),
    };
    let tokens = interface.buffer(&Role::TokenCount).map(Held::Counted);
    if let (Some(list), Some(count), Some(tokens)) = (few[1], logit_count, tokens) {
        state.sets.insert(list, (count, tokens));
    }
    for (role, list) in interface.buffers(Direction::In) {
        if let (Some(count), Some(tokens), Role::Input { name }) = (interface.given_set(role), tokens, role) {
            state.sets.insert(list, (Held::Counted(count), tokens));
            let mask = interface.buffer(&Role::SetMask { name: name.clone() });
            state.lists.extend(mask.map(|mask| (mask, list)));
        }
    }
    for (idx, step) in plan.function.steps.iter().enumerate() {
        let symbol = plan.kernels.get(step.kernel as usize).map_or("", |(symbol, _)| symbol).to_owned();
        state.step(step);
        for fault in state.faults.drain(..) {
            errors.push(At::Step { step: idx, symbol: symbol.clone(), origin: step.origin.clone() }, fault);
        }
    }
    for (role, idx) in interface.buffers(Direction::Out).chain(interface.buffers(Direction::Kept)) {
        let held = state.held.get(&idx).copied();
        let is_written = match role {
            Role::Result { .. } if interface.count(role).is_none() => held.is_some(),
            _ => held.is_some() && held == port_rows(role, idx),
        };
        if !is_written {
            let buffer = state.buffer_name(idx);
            errors.push(At::Plan, Fault::Unwritten { param: role.to_string(), buffer });
        }
    }
}

struct State<'a> {
    plan: &'a Plan,
    /// What each kernel does to its parameters.
    touches: Vec<Vec<Touch>>,
    from_host: BTreeSet<u32>,
    held: BTreeMap<u32, Held>,
    /// For each row list: the count of its set, and the rows that it selects from.
    sets: BTreeMap<u32, (Held, Held)>,
    /// The row list of a set, by its mask.
    lists: BTreeMap<u32, u32>,
    /// For the row list of a set that is all rows but those of another one: that one's.
    rests: BTreeMap<u32, u32>,
    /// Buffers that hold the rows of one set, at their places among all: its row list.
    parts: BTreeMap<u32, u32>,
    faults: Vec<Fault>,
}

impl State<'_> {
    fn step(&mut self, step: &Step) {
        let Some((_, kernel)) = self.plan.kernels.get(step.kernel as usize) else {
            let (idx, len) = (step.kernel as usize, self.plan.kernels.len());
            self.faults.push(Fault::Range { what: "kernel", idx, len });
            return;
        };
        if step.args.len() != kernel.params.len() {
            self.faults.push(Fault::Arity { got: step.args.len(), wanted: kernel.params.len() });
            return;
        }
        for (idx, (param, arg)) in kernel.params.iter().zip(&step.args).enumerate() {
            self.arg(param, *arg);
            for (other, other_arg) in kernel.params.iter().zip(&step.args).take(idx) {
                if self.is_alias(*arg, *other_arg) {
                    let (first, second) = (other.name.clone(), param.name.clone());
                    self.faults.push(Fault::Alias { first, second });
                }
            }
        }
        let mut touches = self.touches.get(step.kernel as usize).cloned().unwrap_or_default();
        if let Some(forced) = self.unread_decisions(kernel, step) {
            touches.retain(|touch| touch.slot != forced);
        }
        // All rows are read as the step found them.
        for touch in touches.iter().filter(|touch| !touch.is_write) {
            self.touch(kernel, step, touch);
        }
        for touch in touches.iter().filter(|touch| touch.is_write) {
            self.touch(kernel, step, touch);
        }
        self.open_set(kernel, step);
    }

    fn arg(&mut self, param: &Param, arg: Arg) {
        let found = match arg {
            Arg::Buffer(idx) => {
                let buffers = &self.plan.function.buffers;
                buffers.get(idx as usize).map(|buffer| (buffer.dtype, buffer.cols)).ok_or(Fault::Range {
                    what: "buffer",
                    idx: idx as usize,
                    len: buffers.len(),
                })
            }
            Arg::Constant(idx) => {
                let constants = &self.plan.constants;
                let found = constants.get(idx as usize).map(|constant| &constant.constant);
                found.map(|constant| (constant.dtype, constant.cols)).ok_or(Fault::Range {
                    what: "constant",
                    idx: idx as usize,
                    len: constants.len(),
                })
            }
        };
        match found {
            Err(fault) => self.faults.push(fault),
            Ok((dtype, cols)) if (dtype, cols) != (param.dtype, param.cols) => self.faults.push(Fault::Arg {
                param: param.name.clone(),
                got: format!("{dtype}[_, {cols}]"),
                wanted: format!("{}[_, {}]", param.dtype, param.cols),
            }),
            Ok(_) => {}
        }
        let is_written = param.access != Access::Read;
        match arg {
            Arg::Constant(_) if is_written => {
                self.faults.push(Fault::ConstantWritten { param: param.name.clone() });
            }
            Arg::Buffer(idx) if is_written && self.from_host.contains(&idx) => {
                let buffer = self.buffer_name(idx);
                self.faults.push(Fault::HostOwned { param: param.name.clone(), buffer });
            }
            _ => {}
        }
    }

    fn is_alias(&self, a: Arg, b: Arg) -> bool {
        match (a, b) {
            (Arg::Buffer(a), Arg::Buffer(b)) => a == b || share_memory(&self.plan.function, a, b),
            _ => a == b,
        }
    }

    fn touch(&mut self, kernel: &Kernel, step: &Step, touch: &Touch) {
        let slot = touch.slot.0 as usize;
        let (Some(param), Some(arg)) = (kernel.params.get(slot), step.args.get(slot)) else { return };
        let param = param.name.clone();
        let idx = match *arg {
            Arg::Constant(idx) => return self.constant(param, idx, touch),
            // A parameter that trains is a state, and in other functions than its update as good as a constant; so is a copy of all
            // of it.
            Arg::Buffer(idx) if touch.is_constant => return self.parameter(param, idx, touch),
            Arg::Buffer(idx) => idx,
        };
        if let Some(rows) = self.too_few_rows(idx, touch.rows) {
            return self.faults.push(Fault::Rows { param, got: rows });
        }
        let (wanted, list) = match touch.rows {
            Touched::Anywhere => {
                if !self.held.contains_key(&idx) {
                    self.faults.push(Fault::Unwritten { param, buffer: self.buffer_name(idx) });
                }
                return;
            }
            // What it then holds is known where the set is opened.
            Touched::Listing => return,
            Touched::First(rows) => (Some(Held::First(rows)), None),
            Touched::Over(extent, Rows::Dense) => (held_by(step, extent), None),
            Touched::Over(extent, Rows::Listed(list)) => match self.listed(step, extent, list) {
                Ok(of) => (Some(of), Some(list)),
                Err(fault) => return self.faults.push(fault),
            },
        };
        let Some(wanted) = wanted else { return };
        if touch.is_write && list.is_none() {
            self.held.insert(idx, wanted);
            return;
        }
        match self.held.get(&idx).copied() {
            Some(held) if held == wanted => {}
            Some(_) => self.faults.push(Fault::OtherRows { param, buffer: self.buffer_name(idx) }),
            None if touch.is_write && self.writes_part(step, idx, list, wanted) => {}
            None => self.faults.push(Fault::Unwritten { param, buffer: self.buffer_name(idx) }),
        }
    }

    /// Writes the rows of a set among all `of`. A buffer that holds those of its complement then holds all; one that holds nothing
    /// waits for them.
    fn writes_part(&mut self, step: &Step, idx: u32, list: Option<Slot>, of: Held) -> bool {
        let Some(Some(Arg::Buffer(list))) = list.map(|Slot(list)| step.args.get(list as usize)) else {
            return false;
        };
        let Some(before) = self.parts.insert(idx, *list) else { return true };
        let is_rest = |rest: &u32, of: &u32| self.rests.get(rest) == Some(of);
        let are_all = is_rest(list, &before) || is_rest(&before, list);
        if are_all {
            self.held.insert(idx, of);
        }
        are_all
    }

    fn constant(&mut self, param: String, idx: u32, touch: &Touch) {
        let rows = self.plan.constants.get(idx as usize).map(|constant| constant.constant.rows);
        match (touch.rows, rows) {
            (_, None) => {}
            (Touched::First(wanted), Some(rows)) if wanted <= rows => {}
            (_, Some(rows)) => self.faults.push(Fault::Rows { param, got: rows }),
        }
    }

    fn parameter(&mut self, param: String, idx: u32, touch: &Touch) {
        let Some(buffer) = self.plan.function.buffers.get(idx as usize) else { return };
        let is_whole = |rows| self.held.get(&idx) == Some(&Held::First(rows));
        match (buffer.rows, touch.rows) {
            (RowBound::Fixed(rows), _) if buffer.place().is_some() && !is_whole(rows) => {
                self.faults.push(Fault::NotConstant { param });
            }
            (RowBound::Fixed(rows), Touched::First(wanted)) if wanted <= rows => {}
            (RowBound::Fixed(rows), _) => self.faults.push(Fault::Rows { param, got: rows }),
            _ => self.faults.push(Fault::NotConstant { param }),
        }
    }

    /// The rows of a buffer, if they are fewer than those that the kernel may touch.
    fn too_few_rows(&self, idx: u32, touched: Touched) -> Option<u32> {
        let RowBound::Fixed(rows) = self.plan.function.buffers.get(idx as usize)?.rows else { return None };
        let wanted = match touched {
            Touched::Anywhere => 0,
            Touched::Listing => u32::MAX,
            Touched::First(wanted) | Touched::Over(Extent::Fixed(wanted), Rows::Dense) => wanted,
            Touched::Over(..) => u32::MAX,
        };
        (rows < wanted).then_some(rows)
    }

    /// The rows that a list selects from, if it is the list of the set that the extent counts.
    fn listed(&self, step: &Step, extent: Extent, Slot(list): Slot) -> Result<Held, Fault> {
        let param = format!("{list}");
        let Some(Arg::Buffer(idx)) = step.args.get(list as usize).copied() else {
            return Err(Fault::RowList { param, buffer: "a constant".to_owned() });
        };
        match self.sets.get(&idx) {
            None => Err(Fault::RowList { param, buffer: self.buffer_name(idx) }),
            Some((count, _)) if Some(*count) != held_by(step, extent) => Err(Fault::Extent { param }),
            Some((_, of)) => Ok(*of),
        }
    }

    /// Decisions to replay are not read if the switch that replays them is the constant 0.
    fn unread_decisions(&self, kernel: &Kernel, step: &Step) -> Option<Slot> {
        let Body::Compact(compact) = &kernel.body else { return None };
        let Some(Arg::Constant(idx)) = step.args.get(compact.use_forced.0 as usize) else { return None };
        let is_zero = self.plan.constants.get(*idx as usize)?.source == ConstantSource::Zero;
        is_zero.then_some(compact.forced)
    }

    /// A compaction makes a row list, of the rows of its extent; what waits is one of a cache.
    fn open_set(&mut self, kernel: &Kernel, step: &Step) {
        let (rows, count, of) = match &kernel.body {
            Body::Compact(compact) => (compact.rows, compact.count, held_by(step, kernel.extent)),
            Body::Partition(partition) => (partition.rows, partition.count, held_by(step, kernel.extent)),
            Body::Pending(pending) => (pending.rows, pending.count, Some(Held::Cached)),
            _ => return,
        };
        let arg = |slot: Slot| match step.args.get(slot.0 as usize) {
            Some(Arg::Buffer(idx)) => Some(*idx),
            _ => None,
        };
        if let (Some(rows), Some(count), Some(of)) = (arg(rows), arg(count), of) {
            self.held.insert(rows, Held::Counted(count));
            self.sets.insert(rows, (Held::Counted(count), of));
            if let Body::Compact(compact) = &kernel.body {
                if let Select::NotIn(executed) = compact.select
                    && let Some(executed) = arg(executed).and_then(|mask| self.lists.get(&mask))
                {
                    self.rests.insert(rows, *executed);
                }
                self.lists.extend(arg(compact.mask).map(|mask| (mask, rows)));
            }
        }
    }

    fn buffer_name(&self, idx: u32) -> String {
        self.plan.function.buffers.get(idx as usize).map_or_else(String::new, |buffer| buffer.name.clone())
    }
}

/// The rows of an extent under the arguments of a step.
fn held_by(step: &Step, extent: Extent) -> Option<Held> {
    match extent {
        Extent::Fixed(rows) => Some(Held::First(rows)),
        Extent::Counted { count, .. } => match step.args.get(count as usize) {
            Some(Arg::Buffer(idx)) => Some(Held::Counted(*idx)),
            _ => None,
        },
    }
}

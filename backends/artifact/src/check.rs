//! What must hold of a program before anything is allocated or run by its numbers.
//!
//! Checked of the program: every constant lies in the constants and every state in the states; launches fit the target.
//! Checked of each function: every index names something; every buffer of a step lies in the arena under every bound up
//! to the limit, at a multiple of 4 bytes; every buffer that is a state has that state's type and shape; every step
//! passes as many pointers as its kernel takes; counts are `u32` parameters; the ports are each there once, with the
//! types and shapes of their roles, states with states behind them, routers numbered without gaps.
//! Not checked: what kernels do with their pointers. Code is as trustworthy as whoever made the artefact.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::interface::{Binding, Bound, Direction, Role, Shape};
use crate::program::{
    ArenaPlace, Arg, BOUND_UNIT, Buffer, Entry, Extent, Function, Launch, MEMORY_LIMIT, Program, RowBound,
    RowTile, STATE_ROW_LIMIT, State, Step, Storage,
};
use crate::target::{DType, Target};

/// Largest scratch memory of one call, in bytes: a tile of a few hundred rows of the widest layer.
pub const SCRATCH_LIMIT: u64 = 1 << 30;

/// Most rows of a kernel, and most tokens of a step.
const ROW_LIMIT: u32 = 1 << 30;

/// Checks `program` against the size of its constants.
///
/// # Errors
///
/// [`Error::Program`] with the first thing that does not hold.
pub fn program(program: &Program, constant_bytes: u64) -> Result<(), Error> {
    if program.constant_bytes != constant_bytes {
        return refuse(format!(
            "{} bytes of constants, it expects {}",
            constant_bytes, program.constant_bytes
        ));
    }
    for constant in &program.constants {
        let bytes = matrix_bytes(constant.rows, constant.cols, constant.dtype);
        let end = bytes.and_then(|bytes| constant.offset.checked_add(bytes));
        if !constant.offset.is_multiple_of(256) || end.is_none_or(|end| end > constant_bytes) {
            return refuse(format!("constant `{}` does not lie in the constants", constant.name));
        }
    }
    check_states(program)?;
    program.entries.iter().try_for_each(|entry| check_entry(program, entry))?;
    if program.functions.is_empty() {
        return refuse("it has no function".to_owned());
    }
    program.functions.iter().try_for_each(|(name, function)| Checked { program, name, function }.all())
}

/// Checks the ports of a function, and that each buffer that is a state has the state's type and shape.
///
/// # Errors
///
/// The first thing that does not hold, in words.
pub fn interface(function: &Function, states: &[State]) -> Result<(), String> {
    let checked = Interfaced { function, states };
    function.buffers.iter().try_for_each(|buffer| match buffer.storage {
        Storage::Step(_) => Ok(()),
        Storage::State(idx) => checked.is_state(buffer, idx),
    })?;
    function.interface.ports.iter().try_for_each(|port| checked.port(port))?;
    checked.all_ports()
}

fn matrix_bytes(rows: u32, cols: u32, dtype: DType) -> Option<u64> {
    (u64::from(rows) * u64::from(cols)).checked_mul(u64::from(dtype.size()))
}

/// Most characters of a reason: it may name what somebody made very long.
const REASON_LIMIT: usize = 600;

fn refuse<T>(mut reason: String) -> Result<T, Error> {
    if let Some((end, _)) = reason.char_indices().nth(REASON_LIMIT) {
        reason.truncate(end);
        reason.push('…');
    }
    Err(Error::Program { reason })
}

fn check_states(program: &Program) -> Result<(), Error> {
    let (fixed, by_row) = (program.state_fixed_bytes, program.state_row_bytes);
    if fixed > MEMORY_LIMIT || by_row > STATE_ROW_LIMIT {
        return refuse(format!(
            "states of {fixed} bytes and {by_row} for each row of the caches are too large"
        ));
    }
    // States of fixed rows lie one after the other, and behind them caches, whose places are counted for each row.
    let (mut fixed_end, mut row_end) = (0, 0);
    for State { name, dtype, rows, cols, place } in &program.states {
        let (is_in_region, begin, end, limit, size) = match rows {
            RowBound::Fixed(rows) => {
                let size = matrix_bytes(*rows, *cols, *dtype);
                (place.row_offset == 0, place.fixed_offset, &mut fixed_end, fixed, size)
            }
            RowBound::Cached => {
                let size = matrix_bytes(1, *cols, *dtype);
                (place.fixed_offset == fixed, place.row_offset, &mut row_end, by_row, size)
            }
            RowBound::Tokens => return refuse(format!("state `{name}` has a row for each token of a step")),
        };
        let own_end = size.and_then(|size| begin.checked_add(size)).filter(|own_end| *own_end <= limit);
        let is_aligned = place.fixed_offset.is_multiple_of(256) && place.row_offset.is_multiple_of(4);
        let (true, Some(own_end)) = (is_in_region && is_aligned && begin >= *end, own_end) else {
            return refuse(format!("state `{name}` does not lie by itself in the states"));
        };
        *end = own_end;
    }
    let mut names: Vec<&str> = program.states.iter().map(|state| state.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => refuse(format!("there are two states `{}`", pair[0])),
        None => Ok(()),
    }
}

fn check_entry(program: &Program, entry: &Entry) -> Result<(), Error> {
    let symbol = &entry.symbol;
    match (&program.target, &entry.launch) {
        (Target::Cpu, Launch::Host { scratch_bytes, few_rows, .. })
            if *scratch_bytes <= SCRATCH_LIMIT && few_rows.is_none_or(|few| few.tiles > 0) => {}
        (Target::Cuda(_), Launch::Cuda { threads, .. }) if (1..=1024).contains(threads) => {}
        (target, launch) => return refuse(format!("`{symbol}` is started as {launch:?}, not on {target}")),
    }
    check_tiles(symbol, entry.launch.tiles())?;
    if let Some(param) = entry.writes.iter().find(|param| **param >= entry.n_params) {
        return refuse(format!("`{symbol}` writes to parameter {param}, which it does not have"));
    }
    match entry.extent {
        Extent::Fixed(rows) | Extent::Counted { at_most: rows, .. } if rows > ROW_LIMIT => {
            refuse(format!("`{symbol}` works on {rows} rows"))
        }
        Extent::Counted { count, .. } if count >= entry.n_params => {
            refuse(format!("`{symbol}` counts by parameter {count}, which it does not have"))
        }
        _ => Ok(()),
    }
}

/// Tiles are for ascending numbers of rows, from 0 on, and make a grid.
fn check_tiles(symbol: &str, tiles: &[RowTile]) -> Result<(), Error> {
    let starts = tiles.first().is_none_or(|first| first.from == 0);
    let ascends = tiles.windows(2).all(|pair| pair[0].from < pair[1].from);
    let is_tile = |tile: &RowTile| tile.rows > 0 && (1..=65535).contains(&tile.across);
    if starts && ascends && tiles.iter().all(is_tile) {
        Ok(())
    } else {
        refuse(format!("`{symbol}` has the tiles {tiles:?}"))
    }
}

/// A function that is being checked.
struct Checked<'a> {
    program: &'a Program,
    name: &'a str,
    function: &'a Function,
}

impl Checked<'_> {
    fn all(&self) -> Result<(), Error> {
        let function = self.function;
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(is_word) {
            return self.refuse("functions are named in a-z, 0-9 and _".to_owned());
        }
        let rows = u64::from(function.max_tokens).next_multiple_of(u64::from(BOUND_UNIT));
        let largest = function.row_bytes.checked_mul(rows);
        let largest = largest.and_then(|bytes| bytes.checked_add(function.fixed_bytes));
        if function.max_tokens > ROW_LIMIT || largest.is_none_or(|bytes| bytes > MEMORY_LIMIT) {
            return self.refuse(format!("an arena for {} tokens is too large", function.max_tokens));
        }
        function.buffers.iter().try_for_each(|buffer| match buffer.storage {
            Storage::Step(place) => self.in_arena(buffer, place),
            Storage::State(_) => Ok(()),
        })?;
        function.steps.iter().try_for_each(|step| self.step(step))?;
        interface(function, &self.program.states).or_else(|reason| self.refuse(reason))
    }

    fn refuse<T>(&self, reason: String) -> Result<T, Error> {
        refuse(format!("function `{}`: {reason}", self.name))
    }

    /// Offset and size are linear in the bound, so the two ends of its range stand for all of it.
    fn in_arena(&self, buffer: &Buffer, place: ArenaPlace) -> Result<(), Error> {
        let function = self.function;
        for bound in [BOUND_UNIT, function.max_tokens.next_multiple_of(BOUND_UNIT).max(BOUND_UNIT)] {
            let rows = match buffer.rows {
                RowBound::Tokens => bound,
                RowBound::Fixed(rows) => rows,
                RowBound::Cached => {
                    return self.refuse(format!("buffer `{}` of cached rows is not a state", buffer.name));
                }
            };
            let begin = place.row_offset.checked_mul(u64::from(bound));
            let begin = begin.and_then(|begin| begin.checked_add(place.fixed_offset));
            let bytes = matrix_bytes(rows, buffer.cols, buffer.dtype);
            let end = begin.zip(bytes).and_then(|(begin, bytes)| begin.checked_add(bytes));
            let arena = function.row_bytes * u64::from(bound) + function.fixed_bytes;
            if end.is_none_or(|end| end > arena) {
                return self.refuse(format!("buffer `{}` does not lie in the arena", buffer.name));
            }
        }
        if !place.fixed_offset.is_multiple_of(256) || !place.row_offset.is_multiple_of(4) {
            return self.refuse(format!("buffer `{}` is not aligned", buffer.name));
        }
        Ok(())
    }

    fn step(&self, step: &Step) -> Result<(), Error> {
        let (program, origin) = (self.program, &step.origin);
        let Some(entry) = program.entries.get(step.kernel as usize) else {
            return self
                .refuse(format!("a step of {origin} runs kernel {}, which is not there", step.kernel));
        };
        let (symbol, n_args) = (&entry.symbol, step.args.len());
        if n_args != entry.n_params as usize {
            return self.refuse(format!("a step of {origin} gives `{symbol}` {n_args} pointers"));
        }
        let known = |arg: &Arg| match *arg {
            Arg::Buffer(idx) => (idx as usize) < self.function.buffers.len(),
            Arg::Constant(idx) => (idx as usize) < program.constants.len(),
        };
        if let Some(arg) = step.args.iter().find(|arg| !known(arg)) {
            return self.refuse(format!("a step of {origin} gives `{symbol}` {arg:?}, which is not there"));
        }
        if let Extent::Counted { count, .. } = entry.extent {
            let is_count = step.args.get(count as usize).is_some_and(|&arg| match arg {
                Arg::Buffer(idx) => is_shaped(self.function, idx, COUNT),
                Arg::Constant(_) => false,
            });
            if !is_count {
                return self
                    .refuse(format!("a step of {origin} counts `{symbol}` by something other than a u32"));
            }
        }
        Ok(())
    }
}

fn is_shaped(function: &Function, idx: u32, shape: Shape) -> bool {
    let shape_of = |buffer: &Buffer| Shape { dtype: buffer.dtype, rows: buffer.rows, cols: buffer.cols };
    function.buffers.get(idx as usize).is_some_and(|buffer| shape_of(buffer) == shape)
}

/// A function whose interface is being checked.
struct Interfaced<'a> {
    function: &'a Function,
    states: &'a [State],
}

impl Interfaced<'_> {
    fn is_state(&self, buffer: &Buffer, idx: u32) -> Result<(), String> {
        let state = self.states.get(idx as usize);
        let is_same = state.is_some_and(|state| {
            (buffer.dtype, buffer.rows, buffer.cols) == (state.dtype, state.rows, state.cols)
        });
        if !is_same {
            return Err(format!("buffer `{}` is not what state {idx} is", buffer.name));
        }
        Ok(())
    }

    /// A port by itself.
    fn port(&self, port: &Bound) -> Result<(), String> {
        let role = &port.role;
        let is_counted = matches!(role, Role::Input { .. } | Role::Result { .. });
        if let Some(count) = port.count.filter(|_| !is_counted) {
            return Err(format!("`{role}` is counted by buffer {count}, but has no rows of a set"));
        }
        let idx = match port.to {
            Binding::Buffer(idx) => idx,
            Binding::Always(_) if matches!(role, Role::Decision { .. }) => return Ok(()),
            Binding::Always(_) => return Err(format!("`{role}` is bound to a constant decision")),
        };
        let Some(buffer) = self.function.buffers.get(idx as usize) else {
            return Err(format!("`{role}` is buffer {idx}, which is not there"));
        };
        if role.shape(self.function.sizes()).is_some_and(|shape| !is_shaped(self.function, idx, shape)) {
            return Err(format!("`{role}` is buffer {idx}, which has another type or shape"));
        }
        self.counted(port, buffer)?;
        let state = match buffer.storage {
            Storage::State(state) => self.states.get(state as usize).map(|state| &state.name),
            Storage::Step(_) => None,
        };
        let is_of_caches = buffer.rows == RowBound::Cached;
        match (role.state_name(), role.direction(), state) {
            (Some(name), _, Some(state)) if state != name => {
                Err(format!("`{role}` is buffer {idx}, which is not it"))
            }
            (Some(_), _, None) => Err(format!("`{role}` is buffer {idx}, which is not it")),
            (Some(_), _, Some(_)) if matches!(role, Role::PromptState { .. }) && !is_of_caches => {
                Err(format!("`{role}` is buffer {idx}, which has no row for each token of the caches"))
            }
            (Some(_), _, Some(_)) => Ok(()),
            (None, Direction::Constant, _) => Err(format!("`{role}` is a constant, not a buffer")),
            (None, _, Some(_)) => Err(format!("`{role}` is buffer {idx}, which is a state")),
            (None, _, None) => Ok(()),
        }
    }

    /// A port whose rows are those of a set, and what goes with a set that the caller gives.
    fn counted(&self, port: &Bound, buffer: &Buffer) -> Result<(), String> {
        let (role, interface) = (&port.role, &self.function.interface);
        let given_count = |name: &String| interface.buffer(&Role::SetCount { name: name.clone() });
        if let Role::SetCount { name } | Role::SetMask { name } = role {
            let list = Role::Input { name: name.clone() };
            let is_list = |idx: u32| is_shaped(self.function, idx, LIST);
            let is_set = interface.buffer(&list).is_some_and(is_list)
                && given_count(name).is_some()
                && interface.count(&list) == given_count(name);
            return match is_set {
                true => Ok(()),
                false => Err(format!("`{role}` belongs to no input that is a set")),
            };
        }
        let Some(count) = port.count else { return Ok(()) };
        if buffer.rows != RowBound::Tokens || !is_shaped(self.function, count, COUNT) {
            return Err(format!("`{role}` is counted by buffer {count}, which cannot count it"));
        }
        let is_given =
            |port: &Bound| matches!(port.role, Role::SetCount { .. }) && port.to == Binding::Buffer(count);
        if role.direction() == Direction::In && !interface.ports.iter().any(is_given) {
            return Err(format!("`{role}` has the rows of a set that the caller does not give"));
        }
        Ok(())
    }

    /// All ports together.
    fn all_ports(&self) -> Result<(), String> {
        let interface = &self.function.interface;
        let mut roles: Vec<&Role> = interface.ports.iter().map(|port| &port.role).collect();
        roles.sort_unstable();
        if let Some(pair) = roles.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("it has two ports `{}`", pair[0]));
        }
        let is_count = |port: &&Bound| matches!(port.role, Role::SetCount { .. });
        let mut counts = BTreeSet::new();
        if let Some(port) = interface.ports.iter().filter(is_count).find(|port| !counts.insert(port.to)) {
            return Err(format!("`{}` is the buffer of another set, too", port.role));
        }
        if interface.buffer(&Role::TokenCount).is_none() {
            return Err(format!("it has no port `{}`", Role::TokenCount));
        }
        let kept: BTreeSet<u32> = interface.buffers(Direction::Kept).map(|(_, idx)| idx).collect();
        let mut states = (0..).zip(&self.function.buffers).filter(|(_, buffer)| buffer.place().is_none());
        if let Some((_, buffer)) = states.find(|(idx, _)| !kept.contains(idx)) {
            return Err(format!("buffer `{}` is a state without a port of its own", buffer.name));
        }
        let router_of = |role: &Role| match *role {
            Role::Decision { router }
            | Role::Wanted { router }
            | Role::WantedMask { router }
            | Role::Forced { router }
            | Role::ForcedWanted { router }
            | Role::Executed { router } => Some(router),
            _ => None,
        };
        let n_routers = interface.routers().len() as u32;
        if let Some(role) = roles.iter().find(|role| router_of(role).is_some_and(|it| it >= n_routers)) {
            return Err(format!("`{role}` belongs to a router whose ports are not all there"));
        }
        let forces = roles.iter().any(|role| matches!(role, Role::Forced { .. } | Role::ForcedWanted { .. }));
        if forces && interface.buffer(&Role::UseForced).is_none() {
            return Err(format!("it has no port `{}`", Role::UseForced));
        }
        Ok(())
    }
}

/// The rows of a set.
const LIST: Shape = Shape { dtype: DType::U32, rows: RowBound::Tokens, cols: 1 };

/// What a kernel counts its rows by.
const COUNT: Shape = Shape { dtype: DType::U32, rows: RowBound::Fixed(1), cols: 1 };

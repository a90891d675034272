//! Token sets: routes to compactions.

use skipc_artifact::program::RowBound;
use skipc_artifact::target::DType;
use skipc_ir::{Op, Trait, Type, Value};

use super::Ctx;
use crate::error::PlanError;
use crate::fuse::Group;
use crate::kernel::{Access, Body, Compact, Select};
use crate::plan::ConstantSource;

/// Where a token set lies.
#[derive(Clone, Copy)]
pub(super) struct SetBuffers {
    /// Row list.
    pub(super) rows: u32,
    /// How many rows.
    pub(super) count: u32,
    /// 1 for each row of the set.
    pub(super) mask: u32,
    /// Decisions to replay.
    pub(super) forced: u32,
}

impl Ctx<'_> {
    /// The buffers of a set that a route has made.
    pub(super) fn set(&self, set: Value) -> Result<SetBuffers, PlanError> {
        let known = match self.graph.ty(set) {
            Type::Set { sym, .. } => self.sets.get(sym).copied(),
            Type::Tensor { .. } => None,
        };
        known.ok_or_else(|| self.internal("the set is used before it is made", set))
    }

    pub(super) fn route(&mut self, group: &Group, value: Value) -> Result<(), PlanError> {
        let Type::Set { sym, of } = *self.graph.ty(value) else {
            return Err(self.internal("a route makes a set", value));
        };
        let is_gate = |user: &Value| {
            matches!(self.graph.op(*user), Op::Executed {}) && self.graph.output_names(*user).next().is_some()
        };
        let has_gate = self.graph.users(value).iter().any(is_gate);
        debug_assert!(self.graph.op(value).has(Trait::OpensScope), "only routes get here");
        let buffers = SetBuffers {
            rows: self.buffer(format!("{sym} rows"), DType::U32, RowBound::Tokens, 1),
            count: self.buffer(format!("{sym} count"), DType::U32, RowBound::Fixed(1), 1),
            mask: self.buffer(format!("{sym} mask"), DType::U8, RowBound::Tokens, 1),
            forced: self.buffer(format!("{sym} forced"), DType::U8, RowBound::Tokens, 1),
        };
        if has_gate {
            self.shared.extend([buffers.count, buffers.mask, buffers.forced]);
        }
        self.sets.insert(sym, buffers);
        let mut bind = self.bind(of, value)?;
        let operands = self.graph.operands(value);
        let select = match (self.graph.op(value), operands.as_slice()) {
            (Op::Route { at_least, .. }, [scores]) => {
                let threshold = *at_least;
                Select::AtLeast { scores: self.operand(&mut bind, "scores", *scores)?, threshold }
            }
            (Op::RouteRandom { seed, block, limit, .. }, [positions, sequences]) => {
                let (seed, block, limit) = (*seed, *block, *limit);
                let positions = self.operand(&mut bind, "positions", *positions)?;
                let sequences = self.operand(&mut bind, "sequences", *sequences)?;
                Select::Random { positions, sequences, seed, block, limit }
            }
            _ => return Err(self.internal("this is no route", value)),
        };
        let use_forced = if has_gate {
            bind.slot("use_forced", self.arg(self.io.use_forced), Access::Read)
        } else {
            // Nobody can force what nobody sees.
            self.constant(&mut bind, "use_forced", ConstantSource::Zero, (DType::U32, 1, 1))
        };
        let body = Compact {
            select,
            use_forced,
            forced: bind.slot("forced", self.arg(buffers.forced), Access::Read),
            rows: self.written(&mut bind, "rows", buffers.rows),
            count: self.written(&mut bind, "count", buffers.count),
            mask: self.written(&mut bind, "mask", buffers.mask),
        };
        self.step(group, bind, Body::Compact(body));
        Ok(())
    }
}

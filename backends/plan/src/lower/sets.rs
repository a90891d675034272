//! Token sets: routes to compactions.

use skipc_artifact::interface::{Binding, Role};
use skipc_artifact::program::RowBound;
use skipc_artifact::target::DType;
use skipc_ir::{Dim, Op, Port, Rounding, SetSym, Type, Value};

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::fuse::Group;
use crate::kernel::{
    Access, Body, Candidates, Compact, Keep, Partition, Pending, RankOrder, Ranked, Segment, Select,
};
use crate::op_kind::Route;
use crate::plan::ConstantSource;

/// Where a token set lies.
#[derive(Clone, Copy)]
pub(super) struct SetBuffers {
    /// Row list.
    pub(super) rows: u32,
    /// How many rows.
    pub(super) count: u32,
    /// Of a partition: where segments end.
    pub(super) ends: Option<u32>,
    /// Of a set that a kernel decides.
    pub(super) decided: Option<Decided>,
}

/// What a set that a kernel decides has beside its rows.
#[derive(Clone, Copy)]
pub(super) struct Decided {
    /// 1 for each row of the set.
    pub(super) mask: u32,
    /// Decisions to replay.
    pub(super) forced: u32,
}

impl Ctx<'_> {
    /// The buffers of a set that a route has made.
    pub(super) fn set(&self, set: Value) -> Result<SetBuffers, PlanError> {
        let known = self.graph.ty(set).as_rows().and_then(|(sym, _)| self.sets.get(&sym).copied());
        known.ok_or_else(|| self.internal("the set is used before it is made", set))
    }

    /// Gives a set that the caller gives its list and the count of it.
    pub(super) fn given_set(&mut self, name: &str, sym: SetSym) {
        let role = Role::Input { name: name.to_owned() };
        let of_count = Role::SetCount { name: name.to_owned() };
        let rows = self.buffer(role.to_string(), DType::U32, RowBound::Tokens, 1);
        let count = self.buffer(of_count.to_string(), DType::U32, RowBound::Fixed(1), 1);
        self.interface.bind_rows(role, rows, count);
        self.interface.bind(of_count, Binding::Buffer(count));
        self.sets.insert(sym, SetBuffers { rows, count, ends: None, decided: None });
    }

    /// The mask of a set: that which a route has made, or that of the list that the caller gives.
    pub(super) fn mask(&mut self, set: Value) -> Result<u32, PlanError> {
        if let Op::Input { port: Port { role: Role::Input { name }, .. } } = self.graph.op(set) {
            let role = Role::SetMask { name: name.clone() };
            if self.interface.buffer(&role).is_none() {
                self.role(role.clone());
            }
            return self.port(&role);
        }
        Ok(self.decided(set)?.mask)
    }

    pub(super) fn decided(&self, set: Value) -> Result<Decided, PlanError> {
        self.set(set)?.decided.ok_or_else(|| self.unsupported("decide by a set that the caller gives", set))
    }

    pub(super) fn route(&mut self, group: &Group, value: Value, route: Route) -> Result<(), PlanError> {
        let Some((sym, of)) = self.graph.ty(value).as_rows() else {
            return Err(self.internal("a route makes a set", value));
        };
        let buffers = SetBuffers {
            rows: self.buffer(format!("{sym} rows"), DType::U32, RowBound::Tokens, 1),
            count: self.buffer(format!("{sym} count"), DType::U32, RowBound::Fixed(1), 1),
            ends: None,
            decided: None,
        };
        if let Route::Partition { first, parts } = route {
            let ends = self.buffer(format!("{sym} ends"), DType::U32, RowBound::Fixed(parts), 1);
            self.sets.insert(sym, SetBuffers { ends: Some(ends), ..buffers });
            return self.partition(group, value, (of, first, parts), (buffers, ends));
        }
        self.sets.insert(sym, buffers);
        if let Route::Pending { router } = route {
            return self.pending(group, value, router, buffers);
        }
        let is_gate = |user: &Value| {
            // What a router wanted before its capacity is shown to the host, but not for the host to decide.
            matches!(self.graph.op(*user), Op::Executed {})
                && self
                    .graph
                    .roles(*user)
                    .any(|role| matches!(role, Role::Decision { .. } | Role::WantedMask { .. }))
        };
        let has_gate = self.graph.users(value).iter().any(is_gate);
        let decided = Decided {
            mask: self.buffer(format!("{sym} mask"), DType::U8, RowBound::Tokens, 1),
            forced: self.buffer(format!("{sym} forced"), DType::U8, RowBound::Tokens, 1),
        };
        self.sets.insert(sym, SetBuffers { decided: Some(decided), ..buffers });
        let mut bind = self.bind(of, value)?;
        let select = self.select(&mut bind, value, route)?;
        let use_forced = if has_gate {
            let switch = self.port(&Role::UseForced)?;
            bind.slot("use_forced", self.arg(switch), Access::Read)
        } else {
            // Nobody can force what nobody sees.
            self.constant(&mut bind, "use_forced", ConstantSource::Zero, (DType::U32, 1, 1))
        };
        let body = Compact {
            select,
            use_forced,
            forced: bind.slot("forced", self.arg(decided.forced), Access::Read),
            rows: self.written(&mut bind, "rows", buffers.rows),
            count: self.written(&mut bind, "count", buffers.count),
            mask: self.written(&mut bind, "mask", decided.mask),
        };
        self.step(group, bind, Body::Compact(body));
        Ok(())
    }

    fn partition(
        &mut self,
        group: &Group,
        value: Value,
        (of, first, parts): (Dim, u32, u32),
        (SetBuffers { rows, count, .. }, ends): (SetBuffers, u32),
    ) -> Result<(), PlanError> {
        let [index] = self.operands(value)?;
        let mut bind = self.bind(of, value)?;
        let body = Partition {
            index: self.operand(&mut bind, "index", index)?,
            first,
            parts,
            rows: self.written(&mut bind, "rows", rows),
            ends: self.written(&mut bind, "ends", ends),
            count: self.written(&mut bind, "count", count),
        };
        self.step(group, bind, Body::Partition(body));
        Ok(())
    }

    fn pending(
        &mut self,
        group: &Group,
        value: Value,
        router: u32,
        SetBuffers { rows, count, .. }: SetBuffers,
    ) -> Result<(), PlanError> {
        let [executed, positions, sequences, pages, pending, _] = self.operands(value)?;
        let Type::Set { of, .. } = *self.graph.ty(executed) else {
            return Err(self.internal("what executes is a set", value));
        };
        let mask = self.mask(executed)?;
        let mut bind = self.bind(of, value)?;
        let body = Pending {
            executed: bind.slot("executed", self.arg(mask), Access::Read),
            positions: self.operand(&mut bind, "positions", positions)?,
            sequences: self.operand(&mut bind, "sequences", sequences)?,
            pages: self.cache(&mut bind, "pages", pages)?,
            pending: self.cache(&mut bind, "pending", pending)?,
            router,
            rows: self.written(&mut bind, "rows", rows),
            count: self.written(&mut bind, "count", count),
        };
        self.step(group, bind, Body::Pending(body));
        Ok(())
    }

    fn select(&mut self, bind: &mut Bind, value: Value, route: Route) -> Result<Select, PlanError> {
        Ok(match route {
            Route::AtLeast { threshold } => {
                let [scores] = self.operands(value)?;
                Select::AtLeast { scores: self.operand(bind, "scores", scores)?, threshold }
            }
            Route::Random { seed, block, limit } => {
                let operands = self.graph.operands(value);
                // The kernel's parameter is named for what it is: ids alone are those of tokens.
                let name = if operands.len() == 1 { "tokens" } else { "positions" };
                let ids = self.operand(bind, name, operands[0])?;
                let sequences = operands.get(1).map(|sequences| self.operand(bind, "sequences", *sequences));
                Select::Random { ids, sequences: sequences.transpose()?, seed, block, limit }
            }
            Route::TopK { share, round, is_among } => {
                let operands = self.graph.operands(value);
                let scores = self.operand(bind, "scores", operands[0])?;
                let among = match is_among {
                    true => {
                        let mask = self.mask(operands[1])?;
                        Candidates::Masked(bind.slot("among", self.arg(mask), Access::Read))
                    }
                    false => Candidates::All,
                };
                let sequences = operands.get(1 + usize::from(is_among));
                self.ranks_batch |= sequences.is_none();
                let sequences = sequences.map(|sequences| self.operand(bind, "sequences", *sequences));
                Select::Ranked(Ranked {
                    among,
                    order: RankOrder::Score(scores),
                    sequences: sequences.transpose()?,
                    segment: Segment::Sequence,
                    keep: match round {
                        Rounding::Up => Keep::Share(share),
                        Rounding::Down => Keep::ShareDown(share),
                    },
                })
            }
            Route::First { group_size, slots } => {
                let [wanted, positions, sequences] = self.operands(value)?;
                let places = (positions, sequences);
                Select::Ranked(self.limit(bind, (wanted, None, places), (group_size, slots))?)
            }
            Route::FirstAfter { group_size, slots } => {
                let [wanted, positions, sequences, before, pages] = self.operands(value)?;
                let places = (positions, sequences);
                let ranked = self.limit(bind, (wanted, None, places), (group_size, slots))?;
                let before = self.cache(bind, "before", before)?;
                let pages = self.cache(bind, "pages", pages)?;
                Select::Ranked(Ranked { keep: Keep::Left { slots, before, pages }, ..ranked })
            }
            Route::Complement => {
                let [executed] = self.operands(value)?;
                let mask = self.mask(executed)?;
                Select::NotIn(bind.slot("executed", self.arg(mask), Access::Read))
            }
            Route::WithFirst { first } => {
                let [chosen, positions] = self.operands(value)?;
                let mask = self.mask(chosen)?;
                let chosen = bind.slot("chosen", self.arg(mask), Access::Read);
                Select::WithFirst { chosen, positions: self.operand(bind, "positions", positions)?, first }
            }
            Route::Within => {
                let sets: [Value; 2] = self.operands(value)?;
                let [wanted, outer] = [self.mask(sets[0])?, self.mask(sets[1])?];
                Select::InBoth([
                    bind.slot("wanted", self.arg(wanted), Access::Read),
                    bind.slot("outer", self.arg(outer), Access::Read),
                ])
            }
            Route::Partition { .. } => return Err(self.internal("a partition is not selected", value)),
            Route::Pending { .. } => return Err(self.internal("what waits is not selected", value)),
            Route::Best { group_size, slots } => {
                let [wanted, scores, positions, sequences] = self.operands(value)?;
                let places = (positions, sequences);
                Select::Ranked(self.limit(bind, (wanted, Some(scores), places), (group_size, slots))?)
            }
        })
    }

    /// A capacity over the rows of a set: `wanted`, the scores if they rank, positions and sequences.
    fn limit(
        &mut self,
        bind: &mut Bind,
        (wanted, scores, (positions, sequences)): (Value, Option<Value>, (Value, Value)),
        (size, slots): (u32, u32),
    ) -> Result<Ranked, PlanError> {
        let mask = self.mask(wanted)?;
        let among = Candidates::Masked(bind.slot("wanted", self.arg(mask), Access::Read));
        let order = match scores {
            Some(scores) => RankOrder::Score(self.operand(bind, "scores", scores)?),
            None => RankOrder::Position,
        };
        let positions = self.operand(bind, "positions", positions)?;
        let sequences = Some(self.operand(bind, "sequences", sequences)?);
        let segment = Segment::Group { positions, size };
        Ok(Ranked { among, sequences, segment, order, keep: Keep::Slots(slots) })
    }
}

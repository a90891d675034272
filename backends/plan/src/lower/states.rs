//! States: each is one buffer outside of the arena, for all values of it; what updates one is a kernel over that buffer.

use skipc_artifact::interface::{Binding, Role};
use skipc_artifact::program::{Buffer, RowBound, State, Storage};
use skipc_ir::{Dim, Port, Value};

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::fuse::Group;
use crate::kernel::{Access, Body, Keep, Slot, Update};
use crate::op_kind;

impl Ctx<'_> {
    /// Gives the states of the graph their buffers.
    pub(super) fn states(&mut self) {
        for Port { role, ty } in self.graph.signature().states {
            let (Role::State { name }, Some((elem, _)), Dim::Fixed(rows)) = (&role, ty.as_state(), ty.rows())
            else {
                continue;
            };
            let (dtype, cols) = (self.dtype(elem), ty.cols());
            let storage = Storage::State(self.states.len() as u32);
            self.states.push(State { name: name.clone(), dtype, rows, cols, offset: 0 });
            let rows = RowBound::Fixed(rows);
            self.buffers.push(Buffer { name: role.to_string(), dtype, rows, cols, storage, live: None });
            self.interface.bind(role, Binding::Buffer((self.buffers.len() - 1) as u32));
        }
    }

    /// The op that makes the next value of a state: it lies where the one before did.
    pub(super) fn update(
        &mut self,
        group: &Group,
        value: Value,
        update: op_kind::Update,
    ) -> Result<(), PlanError> {
        let (state, bind, body) = match update {
            op_kind::Update::AddRows => {
                let [sum, x] = self.operands(value)?;
                let mut bind = self.bind(self.graph.ty(x).rows(), value)?;
                let cols = self.graph.ty(x).cols();
                let x = self.operand(&mut bind, "x", x)?;
                let state = self.buffer_of(sum)?;
                let sum = bind.slot("sum", self.arg(state), Access::ReadWrite);
                (state, bind, Update::AddRows { cols, x, sum })
            }
            op_kind::Update::CountGroups { group_size: size } => {
                let [counts, set, positions, sequences] = self.operands(value)?;
                let mut bind = self.bind(self.graph.ty(positions).rows(), value)?;
                let (mask, n_counts) = (self.set(set)?.mask, self.n_counts(counts));
                let wanted = bind.slot("wanted", self.arg(mask), Access::Read);
                let positions = self.operand(&mut bind, "positions", positions)?;
                let sequences = self.operand(&mut bind, "sequences", sequences)?;
                let state = self.buffer_of(counts)?;
                let counts = bind.slot("counts", self.arg(state), Access::ReadWrite);
                (state, bind, Update::CountGroups { wanted, positions, sequences, size, counts, n_counts })
            }
        };
        self.place[value.index()] = Some(state);
        self.step(group, bind, Body::Update(body));
        Ok(())
    }

    /// The places of a group that earlier steps have left.
    pub(super) fn left(&mut self, bind: &mut Bind, counts: Value, slots: u32) -> Result<Keep, PlanError> {
        let buffer = self.buffer_of(counts)?;
        let slot: Slot = bind.slot("counts", self.arg(buffer), Access::Read);
        Ok(Keep::Left { slots, counts: slot, n_counts: self.n_counts(counts) })
    }

    fn n_counts(&self, counts: Value) -> u32 {
        match self.graph.ty(counts).rows() {
            Dim::Fixed(rows) => rows,
            Dim::Tokens | Dim::Count(_) => 0,
        }
    }
}

//! States: each is one buffer outside of the arena, for all values of it; what updates one is a kernel over that buffer.

use skipc_artifact::interface::Binding;
use skipc_artifact::program::{ArenaPlace, Buffer, RowBound, State, Storage};
use skipc_ir::{Dim, Op, Port, Type, Value};

use super::Ctx;
use super::bind::Bind;
use crate::error::PlanError;
use crate::fuse::Group;
use crate::kernel::{Access, Body, Slot, Update, View};
use crate::op_kind;

impl Ctx<'_> {
    /// Gives the states of the graph their buffers.
    pub(super) fn states(&mut self) {
        for Port { role, ty } in self.graph.signature().states {
            let (Some(name), Some((elem, _))) = (role.state_name(), ty.as_state()) else { continue };
            let rows = match ty.rows() {
                Dim::Fixed(rows) => RowBound::Fixed(rows),
                Dim::Cached => RowBound::Cached,
                Dim::Tokens | Dim::Count(_) => continue,
            };
            let (dtype, cols) = (self.dtype(elem), ty.cols());
            let storage = Storage::State(self.states.len() as u32);
            self.states.push(State {
                name: name.to_owned(),
                dtype,
                rows,
                cols,
                place: ArenaPlace::default(),
            });
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
            op_kind::Update::Training(update) => return self.training_update(group, value, update),
            op_kind::Update::StoreRows => {
                let [cache, rows, places] = self.operands(value)?;
                let mut bind = self.bind(self.graph.ty(rows).rows(), value)?;
                let cols = self.graph.ty(rows).cols();
                let rows = match (self.graph.op(rows), self.graph.operands(rows).as_slice()) {
                    (Op::Executed {}, [set]) => {
                        let mask = self.mask(*set)?;
                        let slot = bind.slot("rows", self.arg(mask), Access::Read);
                        View::dense(slot)
                    }
                    _ => self.operand(&mut bind, "rows", rows)?,
                };
                let places = match self.graph.ty(places) {
                    Type::Set { .. } => {
                        let list = self.set(places)?.rows;
                        let slot = bind.slot("places", self.arg(list), Access::Read);
                        View::dense(slot)
                    }
                    Type::Tensor { .. } | Type::Partition { .. } | Type::State { .. } => {
                        self.operand(&mut bind, "places", places)?
                    }
                };
                let state = self.buffer_of(cache)?;
                let cache = bind.slot("cache", self.arg(state), Access::Write);
                (state, bind, Update::StoreRows { cols, rows, places, cache })
            }
            op_kind::Update::AddRows => {
                let [sum, x] = self.operands(value)?;
                let mut bind = self.bind(self.graph.ty(x).rows(), value)?;
                let cols = self.graph.ty(x).cols();
                let x = self.operand(&mut bind, "x", x)?;
                let state = self.buffer_of(sum)?;
                let sum = bind.slot("sum", self.arg(state), Access::ReadWrite);
                (state, bind, Update::AddRows { cols, x, sum })
            }
        };
        self.place[value.index()] = Some(state);
        self.step(group, bind, Body::Update(body));
        Ok(())
    }

    /// Binds all of a cache, or of the pages of sequences.
    pub(super) fn cache(&mut self, bind: &mut Bind, name: &str, value: Value) -> Result<Slot, PlanError> {
        let buffer = self.buffer_of(value)?;
        Ok(bind.slot(name, self.arg(buffer), Access::Read))
    }
}

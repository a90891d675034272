//! Parameters of a kernel while its body is made.

use skipc_artifact::interface::Role;
use skipc_artifact::program::{Arg, Extent};
use skipc_artifact::target::DType;
use skipc_ir::{Dim, Value};

use super::Ctx;
use crate::error::PlanError;
use crate::fuse::Backing;
use crate::kernel::{Access, Body, Kernel, Param, Rows, Slot, View};

/// Parameters and what a step gives for them. What is bound twice is one parameter, so that two parameters never
/// mean one place in memory.
pub(super) struct Bind {
    params: Vec<Param>,
    args: Vec<Arg>,
    extent: Extent,
}

impl Bind {
    pub(super) fn slot(&mut self, name: &str, what: (Arg, DType, u32), access: Access) -> Slot {
        let (arg, dtype, cols) = what;
        if let Some(idx) = self.args.iter().position(|known| *known == arg) {
            if self.params[idx].access != access {
                self.params[idx].access = Access::ReadWrite;
            }
            return Slot(idx as u32);
        }
        let n_alike =
            self.params.iter().filter(|param| param.name.trim_end_matches(char::is_numeric) == name).count();
        let name = if n_alike == 0 { name.to_owned() } else { format!("{name}{n_alike}") };
        self.params.push(Param { name, dtype, cols, access });
        self.args.push(arg);
        Slot((self.args.len() - 1) as u32)
    }

    /// What a step gives for a parameter.
    pub(super) fn arg(&self, slot: Slot) -> Arg {
        self.args[slot.0 as usize]
    }

    pub(super) fn kernel(self, body: Body) -> (Kernel, Vec<Arg>) {
        (Kernel { params: self.params, extent: self.extent, body }, self.args)
    }
}

impl Ctx<'_> {
    /// Starts a kernel over rows of this dimension.
    pub(super) fn bind(&mut self, rows: Dim, of: Value) -> Result<Bind, PlanError> {
        let mut bind = Bind { params: Vec::new(), args: Vec::new(), extent: Extent::Fixed(0) };
        bind.extent = self.extent(&mut bind, rows, of)?;
        Ok(bind)
    }

    /// The extent of a dimension, its count bound as a parameter.
    pub(super) fn extent(&mut self, bind: &mut Bind, rows: Dim, of: Value) -> Result<Extent, PlanError> {
        let (name, idx) = match rows {
            Dim::Tokens => ("n_tokens", self.port(&Role::TokenCount)?),
            Dim::Count(sym) => match self.sets.get(&sym) {
                Some(set) => ("count", set.count),
                None => return Err(self.internal("its rows are counted before there is a count", of)),
            },
            Dim::Fixed(rows) => return Ok(Extent::Fixed(rows)),
            Dim::Cached => return Err(self.internal("no kernel works on all rows of a cache", of)),
        };
        let Slot(count) = bind.slot(name, self.arg(idx), Access::Read);
        Ok(Extent::Counted { count, at_most: self.options.max_tokens })
    }

    /// A view of an operand.
    pub(super) fn operand(&mut self, bind: &mut Bind, name: &str, value: Value) -> Result<View, PlanError> {
        let backing = self.groups.backing(self.graph, value);
        self.view(bind, name, backing)
    }

    /// A view of what lies in memory.
    pub(super) fn view(&mut self, bind: &mut Bind, name: &str, backing: Backing) -> Result<View, PlanError> {
        let idx = self.buffer_of(backing.base)?;
        let slot = bind.slot(name, self.arg(idx), Access::Read);
        let rows = match backing.set {
            Some(set) => {
                let set = self.set(set)?;
                Rows::Listed(bind.slot("rows", self.arg(set.rows), Access::Read))
            }
            None => Rows::Dense,
        };
        Ok(View { slot, rows, col: backing.col })
    }

    /// A parameter for a buffer that the kernel writes.
    pub(super) fn written(&self, bind: &mut Bind, name: &str, buffer: u32) -> Slot {
        bind.slot(name, self.arg(buffer), Access::Write)
    }
}

//! How many rows the buffers of a function count, as functions of the tokens and of what routers execute.

use std::collections::BTreeMap;

use skipc_artifact::interface::{Role, RouterPorts};
use skipc_artifact::program::{Arg, Step};
use skipc_ir::{Dim, SetSym};
use skipc_passes::rewrite::cost::Poly;
use skipc_plan::kernel::{Body, Compact, KeepChoices, Limit, Partition, Rowwise, Select, Slot};
use skipc_plan::traffic::{RowsOf, rows_of};
use skipc_plan::{ConstantSource, Plan, PlanConstant};

/// Rows by the buffer that counts them. The set of a router has a variable of its own, what another set leaves out the rest of
/// the tokens, and a place of experts its share of the choices, as if tokens took each as often as any other.
pub(super) struct Sets {
    rows: BTreeMap<u32, Poly>,
    /// Which buffer counts the rows of a set, by the buffer of its mask.
    counts: BTreeMap<u32, u32>,
    /// How many choices there are where one is made of them, and what share of the rows an expert takes that chooses itself.
    choices: BTreeMap<String, (u32, f64)>,
}

impl Sets {
    /// The sets of the routers are those that the lowering makes, in model order; a capacity's wanted set is counted
    /// with the set that it limits.
    pub(super) fn of(plan: &Plan) -> Sets {
        let interface = &plan.function.interface;
        let mut sets = Sets { rows: BTreeMap::new(), counts: BTreeMap::new(), choices: BTreeMap::new() };
        let n_tokens = Poly::variable(Dim::Tokens);
        sets.rows.extend(interface.buffer(&Role::TokenCount).map(|buffer| (buffer, n_tokens)));
        for (router, ports) in (0..).zip(interface.routers()) {
            if let RouterPorts::Routed { executed, wanted, .. } = ports {
                let rows = Poly::variable(Dim::Count(SetSym(router)));
                let counted = [Some(executed), wanted].into_iter().flatten();
                sets.rows.extend(counted.map(|buffer| (buffer, rows.clone())));
            }
        }
        plan.function.steps.iter().for_each(|step| sets.step(plan, step));
        sets
    }

    /// How many rows a buffer counts; those that nothing is known of are taken for all.
    pub(super) fn rows(&self, buffer: u32) -> Poly {
        self.rows.get(&buffer).cloned().unwrap_or_else(|| Poly::variable(Dim::Tokens))
    }

    /// The sets that a step makes.
    fn step(&mut self, plan: &Plan, step: &Step) {
        let Some((_, kernel)) = plan.kernels.get(step.kernel as usize) else { return };
        match &kernel.body {
            Body::Compact(compact) => self.compact(step, compact),
            Body::Partition(partition) => self.partition(step, partition, rows_of(step, kernel.extent)),
            Body::Rowwise(Rowwise::Choose { n, .. }) => {
                self.choices.insert(step.origin.clone(), (*n, 1.0));
            }
            Body::Rowwise(Rowwise::Embed { table, .. }) => {
                if let Some(Arg::Constant(table)) = step.args.get(table.0 as usize)
                    && let Some(PlanConstant { source: ConstantSource::HashChoice { experts, .. }, .. }) =
                        plan.constants.get(*table as usize)
                {
                    self.choices.insert(step.origin.clone(), (*experts, 1.0));
                }
            }
            Body::Rowwise(Rowwise::Limit(Limit { k, keep: KeepChoices::Share { top_k, .. }, .. })) => {
                if let Some((_, share)) = self.choices.get_mut(&step.origin) {
                    *share = f64::from(*top_k) / f64::from(*k);
                }
            }
            _ => {}
        }
    }

    fn compact(&mut self, step: &Step, compact: &Compact) {
        let (Some(mask), Some(count)) = (buffer(step, compact.mask), buffer(step, compact.count)) else {
            return;
        };
        self.counts.insert(mask, count);
        if let Select::NotIn(executed) = compact.select
            && let Some(executed) = buffer(step, executed).and_then(|mask| self.counts.get(&mask))
        {
            let rest = Poly::variable(Dim::Tokens) + self.rows(*executed).scale(-1.0);
            self.rows.insert(count, rest);
        }
    }

    /// Choices that give nothing are in no partition, and those that give their input in one of their own.
    fn partition(&mut self, step: &Step, partition: &Partition, among: RowsOf) {
        let Some(count) = buffer(step, partition.count) else { return };
        let among = match among {
            RowsOf::Fixed(rows) => Poly::constant(f64::from(rows)),
            RowsOf::Count(buffer) => self.rows(buffer),
        };
        let (of, share) = self.choices.get(&step.origin).copied().unwrap_or((partition.parts, 1.0));
        let share = share * f64::from(partition.parts) / f64::from(of);
        self.rows.insert(count, among.scale(share));
    }
}

/// The buffer that a kernel's parameter points to in a step.
fn buffer(step: &Step, slot: Slot) -> Option<u32> {
    match step.args.get(slot.0 as usize) {
        Some(Arg::Buffer(idx)) => Some(*idx),
        _ => None,
    }
}

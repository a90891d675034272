//! Planted faults: a suite that a wrong backend passes is worth nothing.
//!
//! Each fault is one that a code generator can make. It is planted by giving the interpreter another kernel or other
//! operands than the case says, and the suite has to notice. A fault that the interpreter itself refuses to run
//! proves nothing about the suite and is not counted.

mod convs;
mod kernels;
mod numbers;
mod ranks;
mod rows;
mod states;

use skipc_plan::interp::{Tiling, run_kernel};
use skipc_plan::kernel::{Access, Kernel, Param, Slot, View};
use skipc_plan::pointwise::{Inst, Pointwise};
use skipc_testkit::kernel_cases::{Case, cases};

/// A kernel and its operands, about to be spoilt.
struct Victim {
    kernel: Kernel,
    operands: Vec<Vec<u8>>,
}

/// Spoils a kernel or its operands; false if the fault cannot show in this kernel.
type Plant = fn(&mut Victim) -> bool;

/// A fault, and how many cases have to notice it, at least: about nine tenths of those that do.
struct Fault {
    name: &'static str,
    plant: Plant,
    least: usize,
}

#[test]
fn planted_faults_are_noticed() {
    let cases = cases();
    let all = rows::FAULTS.iter().chain(&kernels::FAULTS).chain(&numbers::FAULTS).chain(&ranks::FAULTS);
    let all = all.chain(&states::FAULTS).chain(&convs::FAULTS);
    let mut slipped = Vec::new();
    for fault in all {
        let verdicts: Vec<bool> = cases.iter().filter_map(|case| survives(case, fault.plant)).collect();
        let noticed = verdicts.iter().filter(|survived| !**survived).count();
        println!("{}: planted {} times, noticed {noticed} times", fault.name, verdicts.len());
        if noticed < fault.least {
            slipped.push(format!("{}: noticed by {noticed} cases, expected {}", fault.name, fault.least));
        }
    }
    assert!(slipped.is_empty(), "{}", slipped.join("\n"));
}

/// Whether a spoilt kernel gives what the case expects; `None` if the fault could not be planted in it.
fn survives(case: &Case, plant: Plant) -> Option<bool> {
    let mut victim = Victim { kernel: case.kernel.clone(), operands: case.operands.clone() };
    if !plant(&mut victim) {
        return None;
    }
    run_kernel(&victim.kernel, &mut victim.operands, Tiling::of(16)).ok()?;
    let mut after = victim.operands;
    after.truncate(case.operands.len());
    for ((param, after), before) in case.kernel.params.iter().zip(&mut after).zip(&case.operands) {
        if param.access == Access::Read {
            // The fault is in the code and not in the operands: a harness would find them unchanged.
            after.clone_from(before);
        } else if after.len() != before.len() {
            numbers::truncate_to_bf16(after);
        }
    }
    Some(case.check(&after).is_ok())
}

impl Victim {
    /// Another operand, for code that reads something else than it should.
    fn add(&mut self, like: Slot, bytes: Vec<u8>) -> Slot {
        let slot = Slot(self.kernel.params.len() as u32);
        self.kernel.params.push(Param { access: Access::Read, ..self.kernel.param(like).clone() });
        self.operands.push(bytes);
        slot
    }

    fn word(&self, slot: u32) -> u32 {
        self.operands[slot as usize].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
    }
}

/// All views of a program.
fn views(program: &mut Pointwise) -> Vec<&mut View> {
    let loads = program.code.iter_mut().filter_map(|inst| match inst {
        Inst::Load(view) | Inst::LoadRow(view) | Inst::LoadAt { index: view, .. } => Some(view),
        Inst::Acc(_) | Inst::AccRotated { .. } | Inst::LoadCol(_) | Inst::Unary(..) | Inst::Binary(..) => {
            None
        }
    });
    loads.chain(program.stores.iter_mut().map(|store| &mut store.to)).collect()
}

//! The functions of a program put together: kernels, constants and states that are equal become one.

use std::collections::BTreeMap;

use indexmap::{IndexMap, IndexSet};
use serde::{Deserialize, Serialize};
use skipc_artifact::program::{Arg, Entry, Function, Launch, Program, State, Storage};
use skipc_artifact::target::{DType, Target};

use crate::error::PlanError;
use crate::kernel::Kernel;
use crate::layout;
use crate::lower::Constants;
use crate::plan::{Plan, PlanConstant, StepSource};

/// What the functions of one program share, and the functions over it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linked {
    /// Type of activations.
    pub dtype: DType,
    /// Kernels with their symbols, in the order of `Step::kernel`. No two are equal.
    pub kernels: Vec<(String, Kernel)>,
    /// Constants, in the order of `Arg::Constant`. No two have the same source and type.
    pub constants: Vec<PlanConstant>,
    /// States, in the order of `Storage::State`. No two have the same name.
    pub states: Vec<State>,
    /// Functions by name.
    pub functions: BTreeMap<String, LinkedFunction>,
}

/// A function over what is shared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkedFunction {
    /// Buffers, steps, and what the caller gives and gets.
    pub function: Function,
    /// What each step computes, in the order of the steps, human-readable.
    pub sources: Vec<StepSource>,
}

/// Puts plans together, each as the function of its name. Their kernels keep the order in which they come first.
///
/// # Errors
/// No plans, plans of different types, states that share a name and nothing else, or sizes that overflow.
pub fn link<'p>(plans: impl IntoIterator<Item = (&'p str, &'p Plan)>) -> Result<Linked, PlanError> {
    let mut linker = Linker::default();
    let mut dtype = None;
    for (name, plan) in plans {
        if *dtype.get_or_insert(plan.dtype) != plan.dtype {
            return Err(refused("functions of one program have one type", name));
        }
        linker.add(name, plan)?;
    }
    let dtype = dtype.ok_or_else(|| refused("a program has functions", "the program"))?;
    let mut states: Vec<State> = linker.states.into_values().collect();
    layout::place_states(&mut states)?;
    let symbol = |(idx, kernel): (usize, Kernel)| (format!("k{idx:02}_{}", kernel.describe()), kernel);
    Ok(Linked {
        dtype,
        kernels: linker.kernels.into_iter().enumerate().map(symbol).collect(),
        constants: linker.constants.lay_out()?,
        states,
        functions: linker.functions,
    })
}

fn refused(what: &'static str, place: &str) -> PlanError {
    PlanError::Link { what, name: place.to_owned() }
}

#[derive(Default)]
struct Linker {
    kernels: IndexSet<Kernel>,
    constants: Constants,
    states: IndexMap<String, State>,
    functions: BTreeMap<String, LinkedFunction>,
}

impl Linker {
    fn add(&mut self, name: &str, plan: &Plan) -> Result<(), PlanError> {
        let kernels: Vec<u32> = plan
            .kernels
            .iter()
            .map(|(_, kernel)| self.kernels.insert_full(kernel.clone()).0 as u32)
            .collect();
        let constants: Vec<u32> = plan
            .constants
            .iter()
            .map(|PlanConstant { source, constant }| {
                self.constants.add(source.clone(), constant.dtype, (constant.rows, constant.cols))
            })
            .collect();
        let mut states = Vec::new();
        for state in &plan.states {
            let (idx, known) = match self.states.get_full(&state.name) {
                Some((idx, _, known)) => (idx, known.clone()),
                None => (self.states.insert_full(state.name.clone(), state.clone()).0, state.clone()),
            };
            if (known.dtype, known.rows, known.cols) != (state.dtype, state.rows, state.cols) {
                return Err(refused("a state has one shape in all functions", &state.name));
            }
            states.push(idx as u32);
        }
        let new = |list: &[u32], old: u32| {
            list.get(old as usize).copied().ok_or_else(|| refused("an index of a plan names something", name))
        };
        let mut function = plan.function.clone();
        for step in &mut function.steps {
            step.kernel = new(&kernels, step.kernel)?;
            for arg in &mut step.args {
                if let Arg::Constant(idx) = arg {
                    *idx = new(&constants, *idx)?;
                }
            }
        }
        for buffer in &mut function.buffers {
            if let Storage::State(idx) = &mut buffer.storage {
                *idx = new(&states, *idx)?;
            }
        }
        self.functions.insert(name.to_owned(), LinkedFunction { function, sources: plan.sources.clone() });
        Ok(())
    }
}

impl Linked {
    /// Bytes of all constants together.
    pub fn constant_bytes(&self) -> u64 {
        crate::plan::constant_bytes(&self.constants)
    }

    /// The plan of one function over what all share, by the program's own indices; `None` if there is no such function.
    pub fn plan(&self, name: &str) -> Option<Plan> {
        let LinkedFunction { function, sources } = self.functions.get(name)?.clone();
        let (kernels, constants) = (self.kernels.clone(), self.constants.clone());
        Some(Plan { dtype: self.dtype, kernels, constants, states: self.states.clone(), function, sources })
    }

    /// The program for a target, whose generator says how each kernel is started.
    pub fn program(&self, target: &Target, launches: &[Launch]) -> Program {
        let entry = |((symbol, kernel), launch): (&(String, Kernel), &Launch)| Entry {
            symbol: symbol.clone(),
            n_params: kernel.params.len() as u32,
            writes: kernel.writes(),
            extent: kernel.extent,
            launch: launch.clone(),
        };
        let (state_fixed_bytes, state_row_bytes) = layout::state_bytes(&self.states);
        let functions = self.functions.iter().map(|(name, of)| (name.clone(), of.function.clone()));
        Program {
            target: target.clone(),
            dtype: self.dtype,
            constants: self.constants.iter().map(|constant| constant.constant.clone()).collect(),
            constant_bytes: self.constant_bytes(),
            states: self.states.clone(),
            state_fixed_bytes,
            state_row_bytes,
            entries: self.kernels.iter().zip(launches).map(entry).collect(),
            functions: functions.collect(),
        }
    }
}

//! A kernel that applies functions, as code of a backend at a level of instructions.

use skipc::driver::backends::{CpuBackend, CpuLevels};
use skipc_artifact::image::HostLevel;
use skipc_artifact::program::Extent;
use skipc_artifact::target::{DType, Target};
use skipc_ir::Unary;
use skipc_plan::buckets::ByHeight;
use skipc_plan::kernel::{Access, Body, Kernel, Param, Rows, Rowwise, Slot, View};
use skipc_plan::pointwise::{Inst, Pointwise, Reg, Store};
use skipc_runtime::{Device, Model, Options, Session};
use skipc_testkit::kernel_cases::Case;

use crate::compiled;

/// Rows and columns of a run.
const SHAPE: [u32; 2] = [4096, 1024];

/// Numbers of a run.
pub(crate) const COUNT: usize = (SHAPE[0] * SHAPE[1]) as usize;

/// The buffer with the numbers: the artefact has three of its own, and a guard before each operand.
const INPUT: u32 = 4;

/// Code to be checked.
pub(crate) struct Variant {
    /// Backend and level.
    pub(crate) name: String,
    model: Model,
    n_functions: u32,
    max_level: HostLevel,
}

impl Variant {
    /// Code of every backend of this build, at every level that this processor has.
    pub(crate) fn all(functions: &[Unary]) -> Result<Vec<Variant>, String> {
        let mut found: Vec<Variant> = Vec::new();
        for backend in CpuBackend::built() {
            let codegen = skipc::driver::backends::for_target(
                &Target::Cpu,
                (backend, CpuLevels::All),
                Box::new(ByHeight),
            )
            .map_err(|failure| failure.diagnostics.to_string())?;
            let artefact = compiled::artefact(codegen.as_ref(), &[&case(functions)])?;
            let model = Model::from_bytes(&artefact).map_err(|error| error.to_string())?;
            for max_level in HostLevel::DESCENDING.into_iter().rev() {
                let n_functions = functions.len() as u32;
                let variant = Variant { name: String::new(), model: model.clone(), n_functions, max_level };
                // A level that is not there is the one below it again.
                let name = format!("{} on {}", backend.name(), variant.session()?.describe());
                if found.iter().all(|other| other.name != name) {
                    found.push(Variant { name, ..variant });
                }
            }
        }
        Ok(found)
    }

    /// The code, ready to run on one thread.
    pub(crate) fn session(&self) -> Result<Session, String> {
        let options = Options { threads: 1, max_level: Some(self.max_level), ..Options::default() };
        Session::new(&self.model, Device::Cpu, options).map_err(|error| error.to_string())
    }

    /// What each function gives for the numbers.
    pub(crate) fn apply(&self, session: &mut Session, inputs: &[f32]) -> Result<Vec<Vec<f32>>, String> {
        let bytes = inputs.iter().flat_map(|x| x.to_le_bytes()).collect();
        let wanted: Vec<u32> = (1..=self.n_functions).map(|idx| INPUT + 2 * idx).collect();
        let outputs = session.run_buffers(SHAPE[0], vec![(INPUT, bytes)], &wanted);
        let outputs = outputs.map_err(|error| error.to_string())?;
        let numbers =
            |bytes: &Vec<u8>| bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
        Ok(outputs.iter().map(numbers).collect())
    }
}

fn case(functions: &[Unary]) -> Case {
    let [rows, cols] = SHAPE;
    let param = |name: &str, access| Param { name: name.to_owned(), dtype: DType::F32, cols, access };
    let dense = |slot: u32| View { slot: Slot(slot), rows: Rows::Dense, col: 0 };
    let mut params = vec![param("x", Access::Read)];
    let (mut code, mut stores) = (vec![Inst::Load(dense(0))], Vec::new());
    for (idx, function) in (1..).zip(functions) {
        params.push(param(function.name(), Access::Write));
        code.push(Inst::Unary(*function, Reg(0)));
        stores.push(Store { to: dense(idx), value: Reg(idx) });
    }
    let body = Body::Rowwise(Rowwise::Map { cols, program: Pointwise { code, stores } });
    let operands = vec![vec![0; COUNT * 4]; params.len()];
    let kernel = Kernel { params, extent: Extent::Fixed(rows), body };
    Case { name: "functions".to_owned(), kernel, operands, expected: Vec::new() }
}

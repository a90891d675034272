//! What is in an artefact: its programs with their functions, and the code for this machine's processor.

use std::fmt;

use serde_json::{Value, json};
use skipc_artifact::bundle;
use skipc_artifact::container::Header;
use skipc_artifact::image::HostLevel;
use skipc_artifact::program::{Entry, Function, Program, SCORE};
use skipc_artifact::reader::Sections;
use skipc_artifact::target::Target;
use skipc_runtime::Choice;

/// The programs of an artefact. Nothing of its constants and code is read.
pub struct Contents {
    /// The programs, one for each target.
    pub programs: Vec<Program>,
    /// What code there is for the host, of each program for it.
    pub host_code: Vec<HostCode>,
}

/// A function of a program, with its name.
pub type OfProgram<'p> = (&'p Program, &'p str, &'p Function);

/// Levels of instructions that a program for the host has code for, and which of it runs here.
pub struct HostCode {
    levels: Vec<HostLevel>,
    choice: Option<Choice>,
}

impl Contents {
    /// Reads the programs of all targets.
    ///
    /// # Errors
    /// A section that cannot be read.
    pub fn of(artifact: &impl Sections) -> Result<Contents, skipc_artifact::Error> {
        let targets = bundle::targets(artifact);
        let programs = targets.iter().map(|target| bundle::read_program(artifact, target));
        let programs: Vec<Program> = programs.collect::<Result<_, _>>()?;
        let for_host = programs.iter().filter(|program| program.target == Target::Cpu);
        let host_code = for_host.map(|program| HostCode::of(artifact, program)).collect::<Result<_, _>>()?;
        Ok(Contents { programs, host_code })
    }

    /// The functions of all programs, that which scores first.
    pub fn functions(&self) -> impl Iterator<Item = OfProgram<'_>> {
        self.programs.iter().flat_map(|program| {
            let mut functions: Vec<OfProgram<'_>> =
                program.functions.iter().map(|(name, function)| (program, name.as_str(), function)).collect();
            functions.sort_by_key(|(_, name, _)| *name != SCORE);
            functions
        })
    }

    /// All of it as JSON, with the header of the artefact.
    pub fn json(&self, header: &Header) -> Value {
        json!({
            "manifest": header.manifest,
            "external": header.external,
            "sections": header.sections,
            "host_code": self.host_code.iter().map(HostCode::json).collect::<Vec<Value>>(),
            "programs": self.functions().map(function_json).collect::<Vec<Value>>(),
        })
    }
}

impl HostCode {
    fn of(artifact: &impl Sections, program: &Program) -> Result<HostCode, skipc_artifact::Error> {
        let tables = bundle::read_host_tables(artifact, program)?;
        let levels = tables.iter().map(|table| table.level).collect();
        let choice = Choice::among(tables.iter().map(|table| (table.arch, table.level)));
        Ok(HostCode { levels, choice })
    }

    fn json(&self) -> Value {
        let HostCode { levels, choice } = self;
        json!({
            "levels": levels,
            "runs": choice.map(|choice| choice.level),
            "passed_over": choice.and_then(|choice| choice.passed_over),
        })
    }
}

impl fmt::Display for HostCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels: Vec<String> = self.levels.iter().map(|level| format!("{level:?}")).collect();
        write!(f, "code for {}; ", levels.join(", "))?;
        match self.choice {
            Some(choice) => write!(f, "here runs {choice}"),
            None => write!(f, "this machine runs none of it"),
        }
    }
}

/// The kernels that a function runs, each with how often it does.
pub fn kernels<'p>(program: &'p Program, function: &Function) -> impl Iterator<Item = (&'p Entry, usize)> {
    let runs = |kernel: u32| function.steps.iter().filter(|step| step.kernel == kernel).count();
    let entry = |kernel: u32| Some((program.entries.get(kernel as usize)?, runs(kernel)));
    function.kernels().into_iter().filter_map(entry).collect::<Vec<_>>().into_iter()
}

fn function_json((program, name, function): OfProgram<'_>) -> Value {
    json!({
        "target": program.target,
        "purpose": name,
        "dtype": program.dtype,
        "max_tokens": function.max_tokens,
        "bytes_per_token": function.row_bytes,
        "fixed_bytes": function.fixed_bytes,
        "constant_bytes": program.constant_bytes,
        "kernels": kernels(program, function).map(|(entry, runs)| json!({
            "symbol": entry.symbol,
            "runs": runs,
            "launch": entry.launch,
        })).collect::<Vec<Value>>(),
        "steps": function.steps.len(),
        "buffers": function.buffers,
    })
}

//! A program with its code, and its constants, as the sections of one target.
//!
//! | section | holds |
//! | --- | --- |
//! | `cpu/program.json` | the [`Program`] |
//! | `cpu/constants` | all constants, each at its offset |
//! | `cpu/baseline.code`, `cpu/baseline.json` | host code and its entry table; likewise `avx2`, `avx512` |
//! | `cuda/sm_90a/program.json`, `cuda/sm_90a/constants` | likewise |
//! | `cuda/sm_90a/code.ptx` | PTX for any driver that is new enough; always there |
//! | `cuda/sm_90a/code.cubin` | machine code for GPUs of the same major version; may be missing |

use crate::check;
use crate::error::Error;
use crate::image::{HostImage, HostLevel, HostTable};
use crate::program::Program;
use crate::reader::{Artifact, Sections};
use crate::section::SectionKind;
use crate::target::Target;
use crate::writer::{Content, Writer};

/// What a compiler makes for one target, but for the bytes of its constants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Functions, constants, states, entries.
    pub program: Program,
    /// The code of every entry.
    pub code: BundleCode,
}

/// Code in the forms that a target takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleCode {
    /// Images for the host, at most one of each level; each has all entries.
    Host(Vec<HostImage>),
    /// Code for a GPU.
    Cuda {
        /// PTX text.
        ptx: String,
        /// A cubin, if an assembler was at hand.
        cubin: Option<Vec<u8>>,
    },
}

impl Bundle {
    /// Adds the bundle's sections to an artefact. `constants` are the bytes of all constants, each at its offset,
    /// `program.constant_bytes` of them.
    ///
    /// # Errors
    ///
    /// A program that does not fit its code or constants, or two bundles for one target: faults of the compiler.
    pub fn write<'a>(self, writer: &mut Writer<'a>, constants: impl Into<Content<'a>>) -> Result<(), Error> {
        let constants = constants.into();
        check::program(&self.program, writer.length_of(SectionKind::Constants, &constants)?)?;
        let prefix = prefix(&self.program.target);
        let json = |error| Error::Json { section: format!("{prefix}/program.json"), error };
        let text = serde_json::to_vec_pretty(&self.program).map_err(json)?;
        writer.section(format!("{prefix}/program.json"), SectionKind::Program, text)?;
        match self.code {
            BundleCode::Host(images) => {
                for image in images {
                    image.table.offsets(&self.program)?;
                    image.table.check(image.code.len())?;
                    let level = image.table.level.name();
                    let text = serde_json::to_vec_pretty(&image.table).map_err(json)?;
                    writer.section(format!("{prefix}/{level}.json"), SectionKind::HostTable, text)?;
                    writer.section(format!("{prefix}/{level}.code"), SectionKind::HostCode, image.code)?;
                }
            }
            BundleCode::Cuda { ptx, cubin } => {
                writer.section(format!("{prefix}/code.ptx"), SectionKind::Ptx, ptx.into_bytes())?;
                if let Some(cubin) = cubin {
                    writer.section(format!("{prefix}/code.cubin"), SectionKind::Cubin, cubin)?;
                }
            }
        }
        writer.section(constants_section(&self.program.target), SectionKind::Constants, constants)
    }
}

/// The program for `target`, checked against its constants.
///
/// # Errors
///
/// [`Error::Missing`] if the artefact has none; [`Error::Json`] or [`Error::Program`] if it is not what a compiler of
/// this version makes.
pub fn read_program(artifact: &impl Sections, target: &Target) -> Result<Program, Error> {
    let section = format!("{}/program.json", prefix(target));
    let text = artifact.read(&section, SectionKind::Program)?;
    let program: Program = serde_json::from_slice(&text).map_err(|error| Error::Json { section, error })?;
    if program.target != *target {
        let reason = format!("it is for {}, expected {target}", program.target);
        return Err(Error::Program { reason });
    }
    let constants = artifact.entry(&constants_section(target), SectionKind::Constants)?;
    check::program(&program, constants.length)?;
    Ok(program)
}

/// The section with the bytes of all constants of a target's program.
#[must_use]
pub fn constants_section(target: &Target) -> String {
    format!("{}/constants", prefix(target))
}

/// The bytes of the program's constants; the first lies at a multiple of 4096 in its file.
///
/// # Errors
///
/// [`Error::Missing`].
pub fn read_constants<'a, B: AsRef<[u8]>>(
    artifact: &'a Artifact<B>,
    program: &Program,
) -> Result<&'a [u8], Error> {
    artifact.section(&constants_section(&program.target), SectionKind::Constants)
}

/// The tables of a program's host code, highest level first.
///
/// # Errors
///
/// [`Error::Json`] for a table that cannot be read.
pub fn read_host_tables(artifact: &impl Sections, program: &Program) -> Result<Vec<HostTable>, Error> {
    let section = |level: HostLevel| format!("{}/{}.json", prefix(&program.target), level.name());
    let is_there = |name: &String| artifact.header().sections.iter().any(|entry| entry.name == *name);
    let sections = HostLevel::DESCENDING.into_iter().map(section).filter(is_there);
    let read = |section: String| {
        let text = artifact.read(&section, SectionKind::HostTable)?;
        serde_json::from_slice(&text).map_err(|error| Error::Json { section, error })
    };
    sections.map(read).collect()
}

/// Host code of one level, with its table; `None` if the artefact has none of this level.
///
/// # Errors
///
/// A table that does not belong to its code or lacks an entry of `program`.
pub fn read_host_code<'a, B: AsRef<[u8]>>(
    artifact: &'a Artifact<B>,
    program: &Program,
    level: HostLevel,
) -> Result<Option<(&'a [u8], HostTable)>, Error> {
    let prefix = prefix(&program.target);
    let section = format!("{prefix}/{}.json", level.name());
    if !artifact.has(&section) {
        return Ok(None);
    }
    let text = artifact.section(&section, SectionKind::HostTable)?;
    let table: HostTable = serde_json::from_slice(text).map_err(|error| Error::Json { section, error })?;
    let code = artifact.section(&format!("{prefix}/{}.code", level.name()), SectionKind::HostCode)?;
    table.check(code.len())?;
    table.offsets(program)?;
    Ok(Some((code, table)))
}

/// PTX and cubin of a program for CUDA.
///
/// # Errors
///
/// [`Error::Missing`] if there is no PTX.
pub fn read_cuda_code<'a, B: AsRef<[u8]>>(
    artifact: &'a Artifact<B>,
    program: &Program,
) -> Result<(&'a [u8], Option<&'a [u8]>), Error> {
    let prefix = prefix(&program.target);
    let ptx = artifact.section(&format!("{prefix}/code.ptx"), SectionKind::Ptx)?;
    let cubin = format!("{prefix}/code.cubin");
    let cubin = artifact.has(&cubin).then(|| artifact.section(&cubin, SectionKind::Cubin)).transpose()?;
    Ok((ptx, cubin))
}

/// The targets that the artefact has programs for, in file order.
#[must_use]
pub fn targets(artifact: &impl Sections) -> Vec<Target> {
    let programs = artifact.header().sections.iter().filter(|section| section.kind == SectionKind::Program);
    programs
        .filter_map(|section| section.name.strip_suffix("/program.json")?.replace('/', ":").parse().ok())
        .collect()
}

fn prefix(target: &Target) -> String {
    target.to_string().replace(':', "/")
}

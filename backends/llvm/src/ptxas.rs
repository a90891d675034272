//! The PTX assembler, run as a program.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::cubin::Cubin;
use crate::error::Error;
use crate::module::Ptx;
use crate::resources::KernelResources;

/// Names the program to use before any other is looked for.
const VARIABLE: &str = "SKIPC_PTXAS";

/// A PTX assembler that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ptxas {
    program: PathBuf,
}

impl Ptxas {
    /// Looks for the assembler: the program that `SKIPC_PTXAS` names, `cached` if the caller has a
    /// place where it may lie, then each directory of `PATH`.
    ///
    /// # Errors
    /// [`Error::NoPtxas`] with the places and how to get one. A variable that is set and names no
    /// file is an error too: falling back would assemble with another version than was asked for.
    pub fn find(cached: Option<&Path>) -> Result<Self, Error> {
        Self::find_in(env::var_os(VARIABLE), cached, env::var_os("PATH"))
    }

    fn find_in(
        named: Option<OsString>,
        cached: Option<&Path>,
        path: Option<OsString>,
    ) -> Result<Self, Error> {
        if let Some(named) = named {
            let program = PathBuf::from(named);
            if program.is_file() {
                return Ok(Self { program });
            }
            return Err(Error::NoPtxas { looked_at: vec![format!("{VARIABLE}={}", program.display())] });
        }
        let on_path = path.iter().flat_map(env::split_paths).map(|folder| folder.join("ptxas"));
        if let Some(program) =
            cached.map(Path::to_path_buf).into_iter().chain(on_path).find(|program| program.is_file())
        {
            return Ok(Self { program });
        }
        let mut looked_at = vec![format!("{VARIABLE} (not set)")];
        looked_at.extend(cached.map(|path| path.display().to_string()));
        looked_at.push("PATH".to_owned());
        Err(Error::NoPtxas { looked_at })
    }

    /// The program that will be run.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its version, such as `13.0.88`.
    ///
    /// # Errors
    /// [`Error::Io`] if the program cannot be run, [`Error::Report`] if what it prints names no version.
    pub fn version(&self) -> Result<String, Error> {
        let io = |source| Error::Io { program: self.program.clone(), source };
        let output = Command::new(&self.program).arg("--version").output().map_err(io)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().find_map(|word| word.strip_prefix('V'));
        version.map(str::to_owned).ok_or(Error::Report { line: text })
    }

    /// Assembles for the target that the text was generated for.
    ///
    /// # Errors
    /// [`Error::Ptxas`] with the log if the text is refused, [`Error::Io`] if the program or its
    /// files fail, [`Error::Report`] if the resource report cannot be read.
    pub fn assemble(&self, ptx: &Ptx) -> Result<Cubin, Error> {
        let io = |source| Error::Io { program: self.program.clone(), source };
        let folder = tempfile::tempdir().map_err(io)?;
        fs::write(folder.path().join("kernels.ptx"), &ptx.text).map_err(io)?;
        // The program may be given relative to our own directory, not to the one it runs in.
        let program = self.program.canonicalize().map_err(io)?;
        let output = Command::new(program)
            .current_dir(folder.path())
            .arg(format!("-arch={}", ptx.target))
            .args(["-O3", "-v", "-o", "kernels.cubin", "kernels.ptx"])
            .output()
            .map_err(io)?;
        let mut log = String::from_utf8_lossy(&output.stdout).into_owned();
        log.push_str(&String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Err(Error::Ptxas { target: ptx.target, log });
        }
        let bytes = fs::read(folder.path().join("kernels.cubin")).map_err(io)?;
        Ok(Cubin { bytes, target: ptx.target, kernels: KernelResources::parse_report(&log)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_to_get_one() {
        let error = Ptxas::find_in(None, Some(Path::new("/nonexistent/ptxas")), None);
        let text = error.map_err(|error| error.to_string());
        assert!(text.is_err_and(|text| text.contains("pip download") && text.contains("/nonexistent/ptxas")));
    }

    #[test]
    fn a_named_program_has_no_fallback() {
        let here = env::current_exe().unwrap_or_default();
        let error = Ptxas::find_in(Some("/nonexistent/ptxas".into()), Some(&here), None);
        assert!(matches!(error, Err(Error::NoPtxas { .. })));
        let found = Ptxas::find_in(None, Some(&here), None).map(|ptxas| ptxas.program);
        assert!(found.is_ok_and(|program| program == here));
    }
}

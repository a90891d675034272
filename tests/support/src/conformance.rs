//! Runs kernel cases on a backend and says how it did.

use std::fmt;

use skipc_plan::kernel::Kernel;

use crate::kernel_cases::Case;

/// Something that runs kernels.
pub trait Backend {
    /// Its name, for people.
    fn name(&self) -> String;

    /// Runs a kernel over its operands, in place.
    ///
    /// # Errors
    /// Why it could not, in words.
    fn run(&mut self, kernel: &Kernel, operands: &mut [Vec<u8>]) -> Result<(), String>;

    /// Cases that it is known to fail: a prefix of their names, and why.
    fn ignored(&self) -> &[(&'static str, &'static str)] {
        &[]
    }
}

/// How a backend did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The backend.
    pub backend: String,
    /// How many cases it passed.
    pub n_passed: usize,
    /// Cases that it was excused from, with the reason.
    pub ignored: Vec<(String, &'static str)>,
    /// Cases that it failed, with what was wrong.
    pub failed: Vec<(String, String)>,
    /// The largest share of its allowance that any element used, and the case.
    pub closest: (f64, String),
}

/// Runs every case.
pub fn run(cases: &[Case], backend: &mut dyn Backend) -> Report {
    let mut report = Report { backend: backend.name(), ..Report::default() };
    for case in cases {
        let ignored = backend.ignored().iter().find(|(prefix, _)| case.name.starts_with(prefix));
        if let Some((_, why)) = ignored {
            report.ignored.push((case.name.clone(), why));
            continue;
        }
        let mut operands = case.operands.clone();
        let judged = backend
            .run(&case.kernel, &mut operands)
            .and_then(|()| case.judge(&operands).map_err(|wrong| wrong.to_string()));
        match judged {
            Ok(used) => {
                report.n_passed += 1;
                if used > report.closest.0 {
                    report.closest = (used, case.name.clone());
                }
            }
            Err(wrong) => report.failed.push((case.name.clone(), wrong)),
        }
    }
    report
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { backend, n_passed, ignored, failed, closest } = self;
        write!(f, "{backend}: {n_passed} passed, {} failed, {} ignored", failed.len(), ignored.len())?;
        writeln!(f, "; at most {:.0} % of a tolerance used ({})", closest.0 * 100.0, closest.1)?;
        for (name, why) in ignored {
            writeln!(f, "  ignored {name}: {why}")?;
        }
        for (name, wrong) in failed {
            writeln!(f, "  failed  {name}: {wrong}")?;
        }
        Ok(())
    }
}

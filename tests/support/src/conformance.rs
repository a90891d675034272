//! Runs kernel cases on a backend and says how it did.

use std::fmt;

use indexmap::IndexMap;

use crate::kernel_cases::Case;

/// What a backend left in the operands of a case, or why it did not run.
pub type Ran = Result<Vec<Vec<u8>>, String>;

/// Something that runs kernels.
pub trait Backend {
    /// Its name, human-readable.
    fn name(&self) -> String;

    /// Runs cases, each over a copy of its operands.
    fn run(&mut self, cases: &[&Case]) -> Vec<Ran>;

    /// Cases that it is excused from: a prefix of their names, and why.
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
    /// How many cases it was excused from, for each reason.
    pub ignored: IndexMap<&'static str, usize>,
    /// Cases that it failed, with what was wrong.
    pub failed: Vec<(String, String)>,
    /// The largest share of its allowance that any element used, and the case.
    pub closest: (f64, String),
}

/// Runs every case that the backend is not excused from.
pub fn run(cases: &[Case], backend: &mut dyn Backend) -> Report {
    let mut report = Report { backend: backend.name(), ..Report::default() };
    let mut taken = Vec::new();
    for case in cases {
        match backend.ignored().iter().find(|(prefix, _)| case.name.starts_with(prefix)) {
            Some((_, why)) => *report.ignored.entry(*why).or_default() += 1,
            None => taken.push(case),
        }
    }
    let ran = backend.run(&taken);
    assert_eq!(ran.len(), taken.len(), "a backend lost cases");
    for (case, ran) in taken.into_iter().zip(ran) {
        match ran.and_then(|after| case.check(&after).map_err(|wrong| wrong.to_string())) {
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

impl Report {
    /// How many cases it was excused from.
    pub fn n_ignored(&self) -> usize {
        self.ignored.values().sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { backend, n_passed, ignored, failed, closest } = self;
        write!(f, "{backend}: {n_passed} passed, {} failed, {} ignored", failed.len(), self.n_ignored())?;
        writeln!(f, "; at most {:.0} % of a tolerance used ({})", closest.0 * 100.0, closest.1)?;
        for (why, n) in ignored {
            writeln!(f, "  ignored {n}: {why}")?;
        }
        for (name, wrong) in failed {
            writeln!(f, "  failed  {name}: {wrong}")?;
        }
        Ok(())
    }
}

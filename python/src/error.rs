//! Errors as exceptions of the package, and work without the interpreter's lock.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::prelude::*;
use skipc::{Error, ErrorKind};

/// The exception for an error: a subclass of `skipc.Error` by whose fault it is, with all that was found.
pub(crate) fn raised(py: Python<'_>, error: &Error) -> PyErr {
    match exception(py, error) {
        Ok(exception) => PyErr::from_value(exception),
        Err(broken) => broken,
    }
}

fn exception<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    let kind = match error.kind {
        ErrorKind::Input => "InputError",
        ErrorKind::Request => "RequestError",
        // Thresholds are options of the command line alone.
        ErrorKind::Mismatch | ErrorKind::Regression => "MismatchError",
        ErrorKind::Unsupported => "UnsupportedError",
        ErrorKind::Internal => "InternalError",
    };
    let findings = json(py, &error.diagnostics)?;
    py.import("skipc.errors")?.getattr(kind)?.call_method1("_of_json", (findings,))
}

/// A value as JSON text, which the package reads.
pub(crate) fn json(py: Python<'_>, value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| raised(py, &Error::internal("json::write", &error)))
}

/// Runs `work` while other threads of the interpreter run. A panic is an error as any other.
pub(crate) fn without_lock<T, E>(py: Python<'_>, work: impl FnOnce() -> Result<T, E> + Send) -> PyResult<T>
where
    T: Send,
    E: Into<Error> + Send,
{
    let ran = py.detach(|| catch_unwind(AssertUnwindSafe(work)));
    match ran {
        Ok(result) => result.map_err(|error| raised(py, &error.into())),
        Err(panic) => Err(raised(py, &Error::panicked(panic.as_ref()))),
    }
}

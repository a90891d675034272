//! skipc for Python: the native half of the package `skipc`, whose modules in `python/skipc/` are what users call.
//!
//! Nothing is computed here: models are compiled by [`skipc`] and run by [`skipc_runtime`], without the interpreter's lock
//! ([`error::without_lock`]). What fails is an exception of the package, with the code that the command line shows
//! ([`error`]). Arrays that go in are read where they lie, and arrays that come out own the memory that they were computed
//! into ([`arrays`]).

mod arrays;
mod artifact;
mod error;
mod model;
mod stream;
mod weights;

use pyo3::prelude::*;

/// The module `skipc._native`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::artifact::{Artifact, compile};
    #[pymodule_export]
    use super::model::{Model, load, load_artifact};
    #[pymodule_export]
    use super::stream::Stream;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

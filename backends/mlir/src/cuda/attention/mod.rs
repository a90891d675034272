use super::Generated;
use crate::error::Error;
use skipc_plan::kernel::Kernel;
pub(super) fn generate<T>(_: &Kernel, _: &T) -> Result<Generated, Error> { Err(Error::Unsupported { what: "x".into() }) }

//! Between NumPy's arrays and ours.
//!
//! Whole numbers that go in are read where they lie, whatever their strides and type; checked, they become token ids of 32
//! bits and decisions of 8, which are copies. Arrays that come out take over the memory of the results; logits are copied once if there is
//! padding between sequences, which results do not have.

use std::path::Path;

use numpy::ndarray::{ArrayD, IxDyn};
use numpy::{Element, IntoPyArray, PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use skipc_runtime::Error;
use skipc_runtime::npy::{Array, FloatArray, IntArray};

use crate::error::raised;

/// The whole numbers of an array with one of these numbers of dimensions; `name` is what errors call it.
///
/// # Errors
/// Another type of elements or number of dimensions.
pub(crate) fn ints(name: &str, array: &Bound<'_, PyAny>, ranks: &[usize]) -> PyResult<IntArray> {
    let found = read::<i64, i64>(array)
        .or_else(|| read::<i32, i64>(array))
        .or_else(|| read::<u32, i64>(array))
        .or_else(|| read::<u8, i64>(array))
        .or_else(|| read::<u16, i64>(array))
        .or_else(|| read::<i16, i64>(array))
        .or_else(|| read::<i8, i64>(array));
    let expected = "whole numbers of at most 64 bits with a sign, or 32 without, in the machine's byte order";
    checked((name, array), found, ranks, expected)
}

/// As [`ints`], the numbers of an array of float32.
///
/// # Errors
/// As there.
pub(crate) fn floats(name: &str, array: &Bound<'_, PyAny>, ranks: &[usize]) -> PyResult<FloatArray> {
    checked((name, array), read::<f32, f32>(array), ranks, "float32 in the machine's byte order")
}

fn checked<T>(
    (name, array): (&str, &Bound<'_, PyAny>),
    found: Option<Array<T>>,
    ranks: &[usize],
    expected: &'static str,
) -> PyResult<Array<T>> {
    let path = || Path::new(name).to_path_buf();
    let refused = |error: Error| raised(array.py(), &error.into());
    let Some(found) = found else {
        let found = array.cast::<PyUntypedArray>()?.dtype().to_string();
        return Err(refused(Error::NpyDtype { path: path(), found, expected }));
    };
    if !ranks.contains(&found.shape.len()) {
        let ranks: Vec<String> = ranks.iter().map(ToString::to_string).collect();
        let expected = format!("{} dimensions", ranks.join(" or "));
        return Err(refused(Error::NpyShape { path: path(), found: found.shape, expected }));
    }
    Ok(found)
}

fn read<T: Element + Copy + Into<U>, U>(array: &Bound<'_, PyAny>) -> Option<Array<U>> {
    let array = array.cast::<PyArrayDyn<T>>().ok()?.try_readonly().ok()?;
    let view = array.as_array();
    let shape = view.shape().iter().map(|size| *size as u64).collect();
    Some(Array { shape, data: view.iter().map(|number| (*number).into()).collect() })
}

/// An array of this shape that owns `elements`; there are as many as the shape says.
pub(crate) fn array<'py, T: Element>(
    py: Python<'py>,
    shape: &[usize],
    elements: Vec<T>,
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let array = ArrayD::from_shape_vec(IxDyn(shape), elements);
    Ok(array.map_err(|error| PyTypeError::new_err(error.to_string()))?.into_pyarray(py))
}

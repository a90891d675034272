"""Arrays of users, whatever library they come from, as NumPy's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import numpy as np
import numpy.typing as npt

#: NumPy arrays, tensors of other libraries (by DLPack, without a copy), and plain lists.
ArrayLike = Union[npt.ArrayLike, Any]


def as_array(values: ArrayLike) -> npt.NDArray[Any]:
    """The array itself, or a view of the tensor's memory; a copy of lists, and of elements that are not aligned."""
    if isinstance(values, np.ndarray):
        return values if values.flags.aligned else values.copy()
    if hasattr(values, "__dlpack__"):
        return np.from_dlpack(values)  # type: ignore[arg-type]
    return np.asarray(values)


def as_ints(values: ArrayLike) -> npt.NDArray[Any]:
    """As `as_array`; an empty list, which NumPy takes for floats, has whole numbers."""
    array = as_array(values)
    if array.size == 0 and isinstance(values, Sequence):
        return array.astype(np.int64)
    return array


def as_decisions(values: ArrayLike) -> npt.NDArray[Any]:
    """As `as_array`; booleans are read as bytes of 0 and 1, without a copy."""
    array = as_array(values)
    return array.view(np.uint8) if array.dtype == np.bool_ else array


def as_weights(values: Any) -> npt.NDArray[Any]:
    """An array of float32, which a narrower float is widened to, exactly."""
    if str(getattr(values, "dtype", "")) in ("torch.bfloat16", "torch.float16"):
        values = values.float()
    if hasattr(values, "detach"):
        values = values.detach()
    array = as_array(values)
    return array.astype(np.float32) if array.dtype == np.float16 else array

"""Compiling models."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from . import _native
from ._arrays import ArrayLike, as_weights
from .errors import Finding, ModelWarning

StrPath = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class RandomWeights:
    """Random weights for a model that is not trained: the same for the same spec and seed."""

    seed: int = 0


class Artifact:
    """A compiled model: `bytes(artifact)` and `save` give what `skipc compile` writes."""

    def __init__(self, native: _native.Artifact) -> None:
        self._native = native

    def save(self, path: StrPath) -> None:
        """Writes the artefact to a file, which is there as a whole or not at all."""
        self._native.save(os.fspath(path))

    def __bytes__(self) -> bytes:
        return bytes(self._native)

    def __len__(self) -> int:
        return len(self._native)

    def __repr__(self) -> str:
        return f"<skipc.Artifact of {len(self)} bytes>"


def compile(
    spec: StrPath,
    *,
    weights: Union[StrPath, Mapping[str, ArrayLike], RandomWeights, None] = None,
    targets: Union[str, Sequence[str]] = ("cpu",),
    dtype: Union[str, Sequence[str]] = (),
    max_tokens: Optional[int] = None,
    steps: bool = True,
    skip: Optional[StrPath] = None,
    router_weights: Optional[StrPath] = None,
) -> Artifact:
    """Compiles a model for all targets into one artefact. Same input, same bytes.

    `spec` is the path of a spec or of a directory as Hugging Face has them or, if it has more than one line, the text of
    a spec. `weights` are a safetensors file or the index of several, arrays by name, or random ones; a directory has its own.
    Arrays are float32 (narrower floats are widened), in any memory layout, and read one after the other.
    `targets` are such as `"cpu"` or `"cuda:sm_90a"`, `dtype` the precision of their layers, such as `"cpu=bf16"`.
    `max_tokens` bounds the tokens of a step, and batches of more are cut between sequences; by default it is the length of the model's longest sequence, or 16 of them with a pooled head.
    Without `steps`, the artefact has half the code and generates by running whole prefixes.
    `skip` is a file that says which layers of a directory skip, `router_weights` one with the weights of its routers.

    What the author of the model should know is a `ModelWarning`.
    """
    text = os.fspath(spec)
    native, found = _native.compile(
        ("spec", text) if isinstance(spec, str) and "\n" in spec else text,
        _source(weights),
        {
            "targets": _words(targets),
            "dtype": _words(dtype),
            "max_tokens": max_tokens,
            "steps": steps,
            "skip": None if skip is None else os.fspath(skip),
            "router_weights": None if router_weights is None else os.fspath(router_weights),
        },
    )
    for finding in json.loads(found)["warnings"]:
        warnings.warn(ModelWarning(Finding.of(finding)), stacklevel=2)
    return Artifact(native)


def _source(weights: Union[StrPath, Mapping[str, ArrayLike], RandomWeights, None]) -> Any:
    if weights is None:
        return None
    if isinstance(weights, RandomWeights):
        return weights.seed
    if isinstance(weights, Mapping):
        return {name: as_weights(values) for name, values in weights.items()}
    return os.fspath(weights)


def _words(words: Union[str, Sequence[str]]) -> list[str]:
    return words.split(",") if isinstance(words, str) else list(words)

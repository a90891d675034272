"""Compiles models whose tokens decide, layer by layer, whether the layer runs, and runs them.

import skipc

artifact = skipc.compile("model.toml", weights="model.safetensors")
model = skipc.load(artifact)
scores = model.score([1, 2, 3])
print(scores.logits.shape, scores.gates)
"""

from ._compile import Artifact, RandomWeights, compile
from ._model import Generated, Model, Piece, Scores, load
from ._native import __version__
from .errors import (
    Error,
    Finding,
    InputError,
    InternalError,
    Label,
    MismatchError,
    ModelWarning,
    RequestError,
    UnsupportedError,
)

__all__ = [
    "Artifact",
    "Error",
    "Finding",
    "Generated",
    "InputError",
    "InternalError",
    "Label",
    "MismatchError",
    "Model",
    "ModelWarning",
    "Piece",
    "RandomWeights",
    "RequestError",
    "Scores",
    "UnsupportedError",
    "__version__",
    "compile",
    "load",
]

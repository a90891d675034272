"""Compiled models inside PyTorch programs, also under `torch.compile(fullgraph=True)`.

    import skipc, skipc.torch

    scorer = skipc.torch.Scorer(skipc.load("model.skp"))
    logits = scorer(torch.tensor([[1, 2, 3]]))

The operator `skipc::score` has a fake implementation, so that tracing knows the shapes of its results. It has no gradient:
a model takes token ids, which have none, and its weights are constants. Tokens are read where they lie, and results are
tensors over the memory that they were computed into; tensors of a GPU are copied to the host and back.
"""

from __future__ import annotations

import itertools
from typing import Optional
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ._model import Model

#: Operators take no objects, so models are named. A name that is constant under tracing is text.
_MODELS: WeakValueDictionary[str, Model] = WeakValueDictionary()
_NUMBERS = itertools.count()


@torch.library.custom_op("skipc::score", mutates_args=())
def score(
    tokens: Tensor, lengths: Optional[Tensor], routing: Optional[Tensor], model: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, gates and counts of `Model.score`, on the device of the tokens."""
    scores = _MODELS[model].score(
        tokens.cpu(),
        lengths=None if lengths is None else lengths.cpu(),
        routing=None if routing is None else routing.cpu(),
    )
    device = tokens.device
    return (
        torch.from_numpy(scores.logits).to(device),
        torch.from_numpy(scores.gates).to(device),
        torch.from_numpy(scores.counts.astype("int64")).to(device),
    )


@score.register_fake
def _(
    tokens: Tensor, lengths: Optional[Tensor], routing: Optional[Tensor], model: str
) -> tuple[Tensor, Tensor, Tensor]:
    known = _MODELS[model]
    return (
        tokens.new_empty((*tokens.shape, known.vocab_size), dtype=torch.float32),
        tokens.new_empty((known.routers, *tokens.shape), dtype=torch.uint8),
        tokens.new_empty((known.routers,), dtype=torch.int64),
    )


class Scorer(torch.nn.Module):
    """A compiled model as a module: tokens `[tokens]` or `[batch, tokens]` in, logits out."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.model_name = f"{next(_NUMBERS)}:{model.name}"
        _MODELS[self.model_name] = model

    def forward(self, tokens: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """Logits, float32 `[…, vocabulary]`."""
        return self.score(tokens, lengths)[0]

    def score(
        self, tokens: Tensor, lengths: Optional[Tensor] = None, routing: Optional[Tensor] = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, gates (uint8 `[routers, …]`) and counts (int64 `[routers]`), as `Model.score` has them."""
        logits, gates, counts = score(tokens, lengths, routing, self.model_name)
        return logits, gates, counts

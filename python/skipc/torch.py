"""Compiled models inside PyTorch programs, also under `torch.compile(fullgraph=True)`.

    import skipc, skipc.torch

    scorer = skipc.torch.Scorer(skipc.load("model.skp"))
    logits = scorer(torch.tensor([[1, 2, 3]]))

    layer = skipc.torch.Layer(skipc.load("layer.skp"))
    rows = layer(torch.randn(2, 16, layer.model.columns))

The operator `skipc::score` has a fake implementation, so that tracing knows the shapes of its results. It has no gradient:
what is compiled runs models, it does not train them. Tokens are read where they lie, and results are
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
    shape = tokens.shape if known.row_columns is None else tokens.shape[:-1]
    return (
        tokens.new_empty((*shape, known.columns), dtype=torch.float32),
        tokens.new_empty((known.routers, *shape), dtype=torch.uint8),
        tokens.new_empty((known.routers,), dtype=torch.int64),
    )


class Scorer(torch.nn.Module):
    """A compiled model as a module: tokens `[tokens]` or `[batch, tokens]` in, logits out.

    Of a model that takes rows, tokens are float32 `[tokens, columns]` or `[batch, tokens, columns]`.
    """

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


class Layer(Scorer):
    """A compiled part of a model, such as one skipped layer, as a module: rows of the stream in, rows out.

    Its spec has `input = "rows"`. Rows of narrower floats are widened, and what comes out is of their type again.
    """

    def __init__(self, model: Model) -> None:
        if model.row_columns is None:
            raise TypeError(f'{model.name} takes token ids, not rows: write `input = "rows"` in its spec')
        super().__init__(model)

    def forward(self, rows: Tensor, lengths: Optional[Tensor] = None) -> Tensor:
        """The rows behind the layer, of the shape and type of `rows`: `[tokens, columns]` or `[batch, tokens, columns]`."""
        return self.score(rows.float(), lengths)[0].to(rows.dtype)

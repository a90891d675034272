"""Loaded models."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, TypedDict, Union

import numpy as np
import numpy.typing as npt

from . import _native
from ._arrays import ArrayLike, as_array, as_decisions, as_ints
from ._compile import Artifact, StrPath

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Settings(TypedDict, total=False):
    """How a continuation is chosen and where it ends: see `Model.stream`."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    stop: Union[str, Sequence[str]]


@dataclass(frozen=True)
class Scores:
    """What a model makes of sequences. The arrays own their memory; padding is 0."""

    #: float32 `[batch, tokens, columns]`, or `[tokens, columns]` for tokens without a batch: scores over the vocabulary, or
    #: the rows that a model without a head gives.
    logits: npt.NDArray[np.float32]
    #: uint8 `[routers, batch, tokens]` or `[routers, tokens]`: 1 where the token executed.
    gates: npt.NDArray[np.uint8]
    #: uint32 `[routers]`: how many tokens executed.
    counts: npt.NDArray[np.uint32]
    #: uint32 `[routers]`: how many more tokens the router wanted to execute than its capacity lets it.
    overflow: npt.NDArray[np.uint32]
    #: uint8 `[layers, batch, tokens, choices]` or `[layers, tokens, choices]` of the layers of experts in the order in which they
    #: run: 1 for each choice that the token got. Layers with fewer choices than the widest are filled with 0.
    experts: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """One new token of a continuation or, as the last piece, why there are no more."""

    #: The new token; `None` in the last piece.
    token: Optional[int]
    #: The characters that it completes; none without a tokenizer.
    text: str
    #: uint8 `[routers, n]`: the decisions about the tokens that ran for it. These are those of the prompt for the
    #: first, and the token before it for others; the last new token never runs.
    gates: npt.NDArray[np.uint8]
    #: In the last piece `"stop"`, or `"length"` where more might follow.
    finish: Optional[str]


@dataclass(frozen=True)
class Generated:
    """A continuation."""

    #: uint32 `[tokens]`.
    tokens: npt.NDArray[np.uint32]
    #: Its text; empty without a tokenizer.
    text: str
    #: uint8 `[routers, n]`: the decisions about all tokens of the prompt and the continuation but the last.
    gates: npt.NDArray[np.uint8]
    #: `"stop"`, or `"length"` where more might follow.
    finish: str


class Model:
    """A model that is loaded for a device. Any number of threads may use it at once."""

    def __init__(self, native: _native.Model) -> None:
        self._native = native

    @property
    def name(self) -> str:
        """What its spec calls it."""
        return self._native.name

    @property
    def device(self) -> str:
        """What its code runs on, human-readable."""
        return self._native.device

    @property
    def vocab_size(self) -> int:
        """Token ids are below this; 0 for a model that takes rows."""
        return self._native.vocab_size

    @property
    def columns(self) -> int:
        """Columns of the logits: the vocabulary, or classes, or the width of the rows that a model without a head gives."""
        return self._native.columns

    @property
    def row_columns(self) -> Optional[int]:
        """Columns of the rows, or patches, that the model takes in place of token ids; `None` if it takes ids."""
        return self._native.row_columns

    @property
    def routers(self) -> int:
        """How many routers decide."""
        return self._native.routers

    @property
    def max_positions(self) -> int:
        """Tokens of the longest sequence."""
        return self._native.max_positions

    @property
    def max_tokens(self) -> int:
        """Most tokens of a step, all sequences together; a batch of more is cut into several."""
        return self._native.max_tokens

    def score(
        self,
        tokens: ArrayLike,
        *,
        lengths: Optional[ArrayLike] = None,
        routing: Optional[ArrayLike] = None,
        experts: Optional[ArrayLike] = None,
    ) -> Scores:
        """Runs sequences: whole numbers `[tokens]` or `[batch, tokens]`, or, for a model that takes rows or patches, float32
        `[tokens, columns]` or `[batch, tokens, columns]`.

        A class token is the first token of its sequence in `Scores.gates` and `routing`, and none of these rows.

        `lengths`, `[batch]`, says how many tokens of each row count; the rest is padding.
        `routing`, of the shape that `Scores.gates` has and of 0 and 1 or booleans, is replayed instead of asking the
        routers.
        `experts`, of the shape that `Scores.experts` has, is replayed instead of asking the routers of layers of experts.
        """
        takes_ids = self._native.row_columns is None
        array = as_ints(tokens) if takes_ids else as_array(tokens)
        is_batch = array.ndim != (1 if takes_ids else 2)
        if routing is not None:
            routing = as_decisions(routing)
            routing = routing if is_batch or routing.ndim != 2 else routing[:, np.newaxis]
        if experts is not None:
            experts = as_decisions(experts)
            experts = experts if is_batch or experts.ndim != 3 else experts[:, np.newaxis]
        lengths = None if lengths is None else as_ints(lengths)
        logits, gates, counts, overflow, choices = self._native.score(array, lengths, routing, experts)
        if not is_batch:
            logits, gates, choices = logits[0], gates[:, 0], choices[:, 0]
        return Scores(logits, gates, counts, overflow, choices)

    def generate(
        self, prompt: Union[str, ArrayLike], max_new_tokens: int = 128, **settings: Unpack[Settings]
    ) -> Generated:
        """Continues a text or the tokens of one sequence; `settings` are those of `stream`."""
        pieces = list(self.stream(prompt, max_new_tokens, **settings))
        tokens = [piece.token for piece in pieces if piece.token is not None]
        return Generated(
            tokens=np.array(tokens, dtype=np.uint32),
            text="".join(piece.text for piece in pieces),
            gates=np.concatenate([piece.gates for piece in pieces], axis=1),
            finish=pieces[-1].finish or "length",
        )

    def stream(
        self,
        prompt: Union[str, ArrayLike],
        max_new_tokens: int = 128,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Union[str, Sequence[str]] = (),
    ) -> Iterator[Piece]:
        """As `generate`, piece by piece, each computed when it is asked for.

        `temperature` 0 takes the likeliest token; else one is drawn among the `top_k` likeliest (0: all), of these among
        the fewest whose probabilities sum up to `top_p`, of these among those at least `min_p` times as likely as the
        likeliest. The same `seed` gives the same tokens. The continuation ends before a text of `stop`.
        """
        tokens = self.encode(prompt) if isinstance(prompt, str) else as_ints(prompt)
        settings: _native.Settings = {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
            "seed": seed,
            "stop": [stop] if isinstance(stop, str) else list(stop),
        }
        return (Piece(*parts) for parts in _native.Stream(self._native, tokens, settings))

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """The tokens of a text."""
        return self._native.encode(text)

    def decode(self, tokens: ArrayLike) -> str:
        """The text of tokens; what is not whole characters becomes U+FFFD."""
        return self._native.decode(as_ints(tokens)).decode("utf-8", errors="replace")

    def verify(self, *, weights: Optional[StrPath] = None) -> dict[str, Any]:
        """Checks that every form of the model gives the same results, and says what was compared.

        With the safetensors file of the compile as `weights`, the model's own constants are compared with it; without,
        they are made anew from random weights. A difference raises `MismatchError`.
        """
        report: dict[str, Any] = json.loads(
            self._native.verify(None if weights is None else os.fspath(weights))
        )
        return report

    def inspect(self) -> dict[str, Any]:
        """What is in the artefact: manifest, sections, programs with their kernels and buffers."""
        contents: dict[str, Any] = json.loads(self._native.inspect())
        return contents

    def __repr__(self) -> str:
        return f"<skipc.Model {self.name} on {self.device}>"


def load(
    artifact: Union[StrPath, bytes, Artifact],
    *,
    device: str = "cpu",
    threads: Optional[int] = None,
    tokenizer: Optional[StrPath] = None,
    trust: Optional[StrPath] = None,
) -> Model:
    """Loads an artefact from a file, from its bytes, or as it was compiled. It is a program: load what you trust.

    `device` is `"cpu"`, `"cuda"` or `"cuda:N"`. `threads` are those of the CPU, by default all; results do not depend on
    them. `tokenizer` is a tokenizer.json or the folder that has it, by default beside the artefact; a model of 256 tokens
    needs none: they are bytes. `trust` is a file of public keys, one of which has to have signed the file (`skipc sign`).
    """
    place: _native.Place = {
        "device": device,
        "threads": threads,
        "tokenizer": None if tokenizer is None else os.fspath(tokenizer),
    }
    if trust is not None and isinstance(artifact, (Artifact, bytes)):
        raise TypeError("trust: a signature lies beside a file; give the artefact as a path")
    if isinstance(artifact, Artifact):
        return Model(_native.load_artifact(artifact._native, place))
    if isinstance(artifact, bytes):
        return Model(_native.load_artifact(artifact, place))
    return Model(_native.load(os.fspath(artifact), place, None if trust is None else os.fspath(trust)))

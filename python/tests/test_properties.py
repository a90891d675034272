"""Shapes drawn at random: what comes out has the shape and the numbers that rows alone give."""

from __future__ import annotations

from typing import Literal

import numpy as np
from conftest import SMALL
from hypothesis import given, settings
from hypothesis import strategies as st

import skipc

MODEL = skipc.load(skipc.compile(SMALL, weights=skipc.RandomWeights(1)))


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    width = draw(st.integers(0, 8))
    rows = draw(st.integers(1, 4))
    tokens = draw(
        st.lists(
            st.lists(st.integers(0, 7), min_size=width, max_size=width),
            min_size=rows,
            max_size=rows,
        )
    )
    lengths = draw(st.lists(st.integers(0, width), min_size=rows, max_size=rows))
    return np.array(tokens, np.int64).reshape(rows, width), np.array(lengths, np.int64)


@settings(max_examples=60, deadline=None)
@given(batches(), st.sampled_from(["C", "F"]), st.sampled_from([np.int64, np.int32, np.uint8]))
def test_rows_of_a_batch_are_those_of_each_alone(
    batch: tuple[np.ndarray, np.ndarray], order: Literal["C", "F"], dtype: type
) -> None:
    tokens, lengths = batch
    scores = MODEL.score(np.asarray(tokens.astype(dtype), order=order), lengths=lengths)
    assert scores.logits.shape == (*tokens.shape, 8) and scores.gates.shape == (2, *tokens.shape)
    assert scores.counts.tolist() == scores.gates.sum(axis=(1, 2)).tolist()
    for row, (ids, length) in enumerate(zip(tokens, lengths)):
        alone = MODEL.score(ids[:length])
        assert np.array_equal(scores.gates[:, row, :length], alone.gates)
        np.testing.assert_allclose(scores.logits[row, :length], alone.logits, rtol=1e-4, atol=1e-5)
        assert not scores.logits[row, length:].any() and not scores.gates[:, row, length:].any()
    replayed = MODEL.score(tokens, lengths=lengths, routing=scores.gates)
    assert replayed.logits.tobytes() == scores.logits.tobytes()

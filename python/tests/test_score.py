"""Scores: equal to the command line's, from arrays of every kind, on several threads, without leaks."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from conftest import SMALL

import skipc

TEXT = b"In the beginning God created the heaven and the earth."


def same(a: skipc.Scores, b: skipc.Scores) -> bool:
    pairs: list[tuple[np.ndarray, np.ndarray]] = [
        (a.logits, b.logits),
        (a.gates, b.gates),
        (a.counts, b.counts),
        (a.overflow, b.overflow),
        (a.experts, b.experts),
    ]
    return all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs
    )


def test_scores_are_those_of_the_command_line(
    example: skipc.Model, example_file: Path, command: Callable[..., str], tmp_path: Path
) -> None:
    tokens = np.frombuffer(TEXT[:48], np.uint8).reshape(3, 16)
    lengths = np.array([16, 0, 5])
    np.save(tmp_path / "tokens.npy", tokens)
    np.save(tmp_path / "lengths.npy", lengths)
    files = {
        name: tmp_path / f"{name}.npy"
        for name in ("tokens", "lengths", "logits", "gates", "replayed")
    }
    base = ["run", example_file, "--tokens", files["tokens"], "--lengths", files["lengths"]]
    command(*base, "--logits", files["logits"], "--routing-out", files["gates"])
    scores = example.score(tokens, lengths=lengths)
    assert scores.logits.dtype == np.float32
    assert scores.logits.tobytes() == np.load(files["logits"]).tobytes()
    assert scores.gates.tobytes() == np.load(files["gates"]).tobytes()
    assert scores.gates.shape == (example.routers, 3, 16)
    assert scores.counts.tolist() == scores.gates.sum(axis=(1, 2)).tolist()

    inverse = 1 - scores.gates
    inverse[:, 1] = inverse[:, 2, 5:] = 0
    np.save(files["gates"], inverse)
    command(*base, "--routing", files["gates"], "--logits", files["replayed"])
    replayed = example.score(tokens, lengths=lengths, routing=inverse)
    assert replayed.logits.tobytes() == np.load(files["replayed"]).tobytes()
    assert replayed.gates.tobytes() == inverse.tobytes()
    assert not np.array_equal(replayed.logits, scores.logits)


#: A block whose tokens choose two of four experts, each of which has places for a part of them.
EXPERTS = SMALL.replace('skip = { router = "sigmoid", density = 0.5 }', "").replace(
    'kind = "ffn"',
    'kind = "experts", experts = 4, top_k = 2, normalise = true, capacity_factor = 0.75, group_size = 8',
)


def test_choices_of_experts_are_replayed() -> None:
    model = skipc.load(skipc.compile(EXPERTS, weights=skipc.RandomWeights(1)))
    tokens = np.arange(24).reshape(2, 12) % 7
    scores = model.score(tokens, lengths=[12, 5])
    assert scores.experts.shape == (2, 2, 12, 4)
    assert scores.experts[:, 1, 5:].sum() == 0 and 0 < scores.experts.sum() < 2 * 17 * 2
    assert same(model.score(tokens, lengths=[12, 5], experts=scores.experts), scores)

    alone = model.score(tokens[0])
    assert alone.experts.shape == (2, 12, 4)
    assert same(model.score(tokens[0], experts=alone.experts.astype(bool)), alone)

    others = np.zeros_like(alone.experts)
    others[:, ::4, 3] = 1
    replayed = model.score(tokens[0], experts=others)
    assert replayed.experts.tobytes() == others.tobytes()
    assert not np.array_equal(replayed.logits, alone.logits)
    with pytest.raises(skipc.Error) as error:
        model.score(tokens[0], experts=np.ones_like(others))
    assert error.value.code == "run::experts-conflict"


def test_a_sequence_alone_has_no_batch(small: skipc.Model) -> None:
    alone, batch = small.score([1, 2, 3]), small.score([[1, 2, 3]])
    assert alone.logits.shape == (3, 8) and alone.gates.shape == (2, 3)
    assert batch.logits.shape == (1, 3, 8) and batch.gates.shape == (2, 1, 3)
    assert alone.logits.tobytes() == batch.logits.tobytes()
    assert same(small.score([1, 2, 3], routing=alone.gates.astype(bool)), alone)


def test_nothing_to_score(small: skipc.Model) -> None:
    empty = small.score([])
    assert empty.logits.shape == (0, 8) and empty.gates.shape == (2, 0)
    assert small.score(np.zeros((2, 0), np.int64)).logits.shape == (2, 0, 8)


class Tensor:
    """A tensor of another library, of which only DLPack is known."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **settings: Any) -> Any:
        return self._array.__dlpack__(**settings)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "i8"])
def test_whole_numbers_of_every_width(small: skipc.Model, dtype: str) -> None:
    tokens = [[1, 2, 3], [4, 5, 6]]
    assert same(small.score(np.array(tokens, dtype)), small.score(tokens))


def test_arrays_may_lie_anyhow(small: skipc.Model) -> None:
    tokens = np.array([[1, 2, 3, 4], [5, 6, 7, 0]])
    wanted = small.score(tokens)
    wide = np.zeros((4, 8), np.int32)
    wide[::2, ::2] = tokens
    read_only = tokens.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(
        b"\0" + tokens.astype(np.int32).tobytes(), np.int32, offset=1
    ).reshape(2, 4)
    assert not unaligned.flags.aligned
    kinds = [
        wide[::2, ::2],
        np.asfortranarray(tokens),
        read_only,
        Tensor(tokens),
        tokens[:, ::-1][:, ::-1],
    ]
    kinds.append(unaligned)
    for kind in kinds:
        assert same(small.score(kind), wanted)


def test_results_own_the_memory_that_they_were_computed_into(small: skipc.Model) -> None:
    scores = small.score([[1, 2, 3]])
    before = scores.logits.copy()
    # The memory is that of the results, not NumPy's: nothing was copied into an array.
    assert not scores.logits.flags.owndata and scores.logits.base is not None
    assert not isinstance(scores.logits.base, np.ndarray)
    assert (
        scores.logits.flags.c_contiguous
        and scores.logits.flags.aligned
        and scores.logits.flags.writeable
    )
    small.score([[4, 5, 6]])
    assert (
        scores.logits.tobytes() == before.tobytes()
    ), "a later call wrote into results of an earlier one"
    assert np.shares_memory(np.from_dlpack(scores.logits), scores.logits)


def test_two_threads_at_once_give_what_each_gives_alone(example: skipc.Model) -> None:
    texts = [np.frombuffer(TEXT[at : at + 20], np.uint8) for at in range(8)]
    alone = [example.score(text) for text in texts]
    together: dict[int, list[skipc.Scores]] = {}
    barrier = threading.Barrier(2)

    def work(which: int) -> None:
        barrier.wait()
        together[which] = [example.score(text) for text in texts[which::2] * 5]

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which in range(2):
        assert len(together[which]) == 20
        for scores, wanted in zip(together[which], alone[which::2] * 5):
            assert same(scores, wanted)


def test_other_threads_run_meanwhile(example: skipc.Model) -> None:
    tokens = np.zeros((1, example.max_positions), np.uint8)
    turns, is_over = 0, threading.Event()

    def count() -> None:
        nonlocal turns
        while not is_over.is_set():
            time.sleep(1e-4)
            turns += 1

    interval = sys.getswitchinterval()
    # Nobody is asked to give up the lock: other threads run only while somebody has let go of it.
    sys.setswitchinterval(60)
    thread = threading.Thread(target=count)
    try:
        thread.start()
        before = turns
        example.score(tokens)
        after = turns
    finally:
        is_over.set()
        sys.setswitchinterval(interval)
        thread.join()
    assert after > before


def test_a_thousand_calls_leak_nothing(example: skipc.Model) -> None:
    tokens = np.frombuffer(TEXT[:32], np.uint8)

    def call(times: int) -> None:
        for _ in range(times):
            example.score(tokens)
            with pytest.raises(skipc.InputError):
                example.score([-1])
            next(example.stream(tokens[:2], 2))

    call(100)
    before = resident_bytes()
    call(1000)
    # One call's logits are 32 KiB, its caches more: what one call in ten leaves would show.
    assert resident_bytes() - before < 1 << 19


def resident_bytes() -> int:
    gc.collect()
    # Memory that is free goes back to the system, or it would hide what is kept.
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()

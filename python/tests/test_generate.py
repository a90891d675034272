"""Continuations: equal to the command line's, piece by piece as at once, and stopped by a signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

import skipc

PROMPT = "And God said"


def test_text_is_that_of_the_command_line(
    example: skipc.Model, example_file: Path, command: Callable[..., str]
) -> None:
    settings: dict[str, Any] = {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 3}
    options = [
        word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)
    ]
    base = ["--json", "generate", example_file, "--prompt", PROMPT, "--max-new-tokens", 24]
    for kind, words in ((settings, options), ({}, [])):
        shown = json.loads(command(*base, *words))
        ours = example.generate(PROMPT, 24, **kind)
        assert shown["sequences"][0]["tokens"] == ours.tokens.tolist()
        assert shown["sequences"][0]["text"] == ours.text
        assert ours.tokens.dtype == np.uint32 and len(ours.tokens) == 24 and ours.finish == "length"


def test_pieces_are_the_whole_and_say_what_was_skipped(example: skipc.Model) -> None:
    whole = example.generate(PROMPT, 8)
    pieces = list(example.stream(PROMPT, 8))
    assert [piece.token for piece in pieces] == [*whole.tokens.tolist(), None]
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [piece.finish for piece in pieces] == [None] * 8 + ["length"]
    widths = [piece.gates.shape for piece in pieces]
    assert widths == [(example.routers, len(PROMPT))] + [(example.routers, 1)] * 7 + [
        (example.routers, 0)
    ]
    tokens = np.concatenate([example.encode(PROMPT), whole.tokens[:-1]])
    assert np.array_equal(example.score(tokens).gates, whole.gates)
    assert 0 < whole.gates.mean() < 1


def test_tokens_in_and_texts_to_stop_at(example: skipc.Model) -> None:
    whole = example.generate(PROMPT, 12)
    assert example.generate(list(PROMPT.encode()), 12).text == whole.text
    word = whole.text[4:7]
    stopped = example.generate(PROMPT, 12, stop=word)
    assert stopped.finish == "stop" and stopped.text == whole.text[: whole.text.index(word)]
    assert example.generate(PROMPT, 12, stop=["☃", word]).text == stopped.text
    assert example.decode(example.encode("naïve")) == "naïve"
    assert example.generate(PROMPT, 0).tokens.shape == (0,)


def test_the_longest_sequence_ends_a_continuation(small: skipc.Model) -> None:
    grown = small.generate([1, 2, 3], 1000)
    assert len(grown.tokens) == 32 - 3 and grown.finish == "length" and grown.text == ""


def test_a_stream_goes_on_by_itself(small: skipc.Model) -> None:
    alone = [piece.token for piece in small.stream([1, 2], 10)]
    first, second = small.stream([1, 2], 10), small.stream([1, 2], 10)
    turns = [(next(first).token, next(second).token) for _ in range(11)]
    assert turns == [(token, token) for token in alone]
    assert list(first) == []


def test_streams_in_threads(small: skipc.Model) -> None:
    wanted = {
        seed: small.generate([1], 20, temperature=1.0, seed=seed).tokens.tolist()
        for seed in range(6)
    }
    assert len({tuple(tokens) for tokens in wanted.values()}) > 1
    found: dict[int, list[int]] = {}

    def work(seed: int) -> None:
        found[seed] = small.generate([1], 20, temperature=1.0, seed=seed).tokens.tolist()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted


LONG = """
import sys, skipc
model = skipc.load(sys.argv[1])
stream = model.stream("And", 100_000)
print(next(stream).token, flush=True)
try:
    while True:
        model.generate("And", 400)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_a_keyboard_interrupt_ends_a_continuation(example_file: Path) -> None:
    program = [sys.executable, "-c", LONG, str(example_file)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().strip().isdigit()
        time.sleep(0.3)
        asked = time.monotonic()
        os.kill(running.pid, signal.SIGINT)
        assert running.stdout.readline().strip() == "interrupted"
        assert running.wait(timeout=20) == 0
    # A step of the example takes a millisecond.
    assert time.monotonic() - asked < 5


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"temperature": -1.0}, "run::usage"),
        ({"top_p": 0.0}, "run::usage"),
        ({"stop": "x"}, "run::usage"),
    ],
)
def test_settings_that_mean_nothing(
    small: skipc.Model, settings: dict[str, Any], code: str
) -> None:
    with pytest.raises(skipc.RequestError) as caught:
        small.stream([1], 1, **settings)
    assert caught.value.code == code

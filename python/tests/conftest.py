"""What tests share: the example model, a small one, and the command line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest

import skipc

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "models" / "kjv-12l-d25"

#: 8 tokens, two blocks that half of the tokens execute.
SMALL = """
[model]
name = "small"
vocab_size = 8
d_model = 16
max_positions = 32
norm = "rmsnorm"
positions = "rope"
tie_embeddings = true

[block.a]
skip = { router = "sigmoid", density = 0.5 }
layers = [{ kind = "ffn", d_ff = 32, activation = "swiglu" }]

[[stack]]
blocks = ["a", "a"]
"""


@pytest.fixture(scope="session")
def small() -> skipc.Model:
    return skipc.load(skipc.compile(SMALL, weights=skipc.RandomWeights(1)))


@pytest.fixture(scope="session")
def example_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("example") / "kjv.skp"
    weights = f"{EXAMPLE}.safetensors"
    skipc.compile(f"{EXAMPLE}.toml", weights=weights).save(path)
    return path


@pytest.fixture(scope="session")
def example(example_file: Path) -> skipc.Model:
    return skipc.load(example_file)


@pytest.fixture(scope="session")
def command() -> Callable[..., str]:
    """Runs the command line and gives what it prints."""
    program = os.environ.get("SKIPC", str(ROOT / "target" / "release" / "skipc"))

    def run(*arguments: object) -> str:
        words = [program, *map(str, arguments)]
        ran = subprocess.run(words, capture_output=True, check=False)
        assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()
        return ran.stdout.decode()

    return run

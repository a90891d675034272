"""Every kind of exception, with code, place and help."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXAMPLE, SMALL

import skipc


def test_a_spec_with_a_wrong_key_says_where(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text(SMALL.replace("density", "densty"))
    with pytest.raises(skipc.InputError) as caught:
        skipc.compile(path, weights=skipc.RandomWeights())
    error = caught.value
    assert error.code == "spec::unknown_key" and "densty" in error.message
    assert error.help is not None and "`density`" in error.help
    (label,) = error.labels
    lines = path.read_text().split("\n")
    assert (label.file, label.line) == (
        str(path),
        1 + next(i for i, x in enumerate(lines) if "densty" in x),
    )
    assert lines[label.line - 1][label.column - 1 :].startswith("densty")
    assert path.read_bytes()[label.start : label.end] == b"densty"
    assert f"{path}:{label.line}:{label.column}" in str(error) and "help:" in str(error)


def test_all_findings_are_there() -> None:
    text = SMALL.replace("density", "densty").replace("norm =", "nrm =")
    with pytest.raises(skipc.InputError) as caught:
        skipc.compile(text, weights=skipc.RandomWeights())
    codes = [finding.code for finding in caught.value.findings]
    assert codes.count("spec::unknown_key") >= 2 and caught.value.code == codes[0]


def test_exceptions_can_be_sent_to_other_processes() -> None:
    with pytest.raises(skipc.InputError) as caught:
        skipc.load(b"nothing")
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is skipc.InputError and str(again) == str(caught.value)
    assert again.findings == caught.value.findings


def test_kinds(small: skipc.Model, tmp_path: Path) -> None:
    compiles: dict[str, dict[str, Any]] = {
        "usage::compile": {"targets": "tpu"},
        "weights::read": {"weights": tmp_path / "none.safetensors"},
        "spec::read": {"spec": tmp_path / "none.toml"},
    }
    usual: dict[str, Any] = {"spec": SMALL, "weights": skipc.RandomWeights()}
    for code, changed in compiles.items():
        with pytest.raises(skipc.Error) as caught:
            skipc.compile(**{**usual, **changed})
        assert caught.value.code == code
        assert type(caught.value) is (
            skipc.RequestError if code.startswith("usage") else skipc.InputError
        )
    with pytest.raises(skipc.RequestError) as caught:
        skipc.compile(SMALL, weights=skipc.RandomWeights(), dtype="cpu=f8")
    assert "cpu=bf16" in (caught.value.help or "")
    artifact = skipc.compile(SMALL, weights=skipc.RandomWeights())
    with pytest.raises(skipc.UnsupportedError) as caught:
        skipc.load(artifact, device="cuda")
    assert caught.value.code == "run::no-program"
    with pytest.raises(skipc.RequestError):
        skipc.load(artifact, device="abacus")
    for kind in (skipc.InputError, skipc.MismatchError, skipc.InternalError):
        assert issubclass(kind, skipc.Error)


def test_artefacts_that_are_none(tmp_path: Path) -> None:
    whole = bytes(skipc.compile(SMALL, weights=skipc.RandomWeights()))
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    for content in (b"", b"nothing", whole[:-1], whole[: len(whole) // 2], bytes(damaged)):
        path = tmp_path / "m.skp"
        path.write_bytes(content)
        for source in (content, path):
            with pytest.raises(skipc.InputError) as caught:
                skipc.load(source)
            assert caught.value.code.startswith("artifact::")
    with pytest.raises(skipc.InputError) as caught:
        skipc.load(tmp_path / "none.skp")
    assert caught.value.code == "run::io"
    with pytest.raises(skipc.InputError) as caught:
        skipc.compile(SMALL, weights=skipc.RandomWeights()).save(tmp_path / "none" / "m.skp")
    assert "none" in caught.value.message
    with pytest.raises(TypeError):
        skipc.load(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ({"tokens": [1.0]}, "npy::dtype", "float64"),
        ({"tokens": ["a"]}, "npy::dtype", "tokens"),
        ({"tokens": np.array([1], np.uint64)}, "npy::dtype", "uint64"),
        ({"tokens": np.array([1], ">i4")}, "npy::dtype", ">i4"),
        ({"tokens": np.array([True])}, "npy::dtype", "bool"),
        ({"tokens": 1}, "npy::shape", "1 or 2 dimensions"),
        ({"tokens": [[[1]]]}, "npy::shape", "[1, 1, 1]"),
        ({"tokens": [-1]}, "npy::value", "-1"),
        ({"tokens": [1 << 40]}, "npy::value", "token"),
        ({"tokens": [8]}, "run::token-range", "8"),
        ({"tokens": [0] * 33}, "run::sequence-too-long", "33"),
        ({"tokens": [[1, 2]], "lengths": [1, 1]}, "npy::shape", "lengths"),
        ({"tokens": [[1, 2]], "lengths": [3]}, "npy::value", "lengths"),
        ({"tokens": [[1, 2]], "lengths": [-1]}, "npy::value", "lengths"),
        ({"tokens": [[1, 2]], "lengths": [1.5]}, "npy::dtype", "lengths"),
        ({"tokens": [1, 2], "routing": [[1, 0]]}, "npy::shape", "[2, 1, 2]"),
        ({"tokens": [1, 2], "routing": [[1, 0], [2, 0]]}, "npy::value", "0 or 1"),
        ({"tokens": [1, 2], "routing": [1, 0]}, "npy::shape", "3 dimensions"),
    ],
)
def test_arrays_that_do_not_fit(
    small: skipc.Model, arguments: dict[str, Any], code: str, said: str
) -> None:
    with pytest.raises(skipc.InputError) as caught:
        small.score(**arguments)
    assert caught.value.code == code
    assert said in caught.value.message


def test_prompts_that_do_not_fit(small: skipc.Model) -> None:
    for prompt, code in (
        ([], "run::empty-prompt"),
        ("text", "run::prompt-vocabulary"),
        ([[1]], "npy::shape"),
    ):
        with pytest.raises(skipc.InputError) as caught:
            small.generate(prompt, 1)
        assert caught.value.code == code


def test_weights_of_another_compile(example_file: Path, tmp_path: Path) -> None:
    model = skipc.load(skipc.compile(f"{EXAMPLE}.toml", weights=skipc.RandomWeights(), steps=False))
    with pytest.raises(skipc.InputError) as caught:
        model.verify(weights=f"{EXAMPLE}.safetensors")
    assert caught.value.code == "weights::other"

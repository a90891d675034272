"""Compiling: from files, text and arrays, with the same bytes each time."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
from conftest import EXAMPLE, ROOT, SMALL

import skipc


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    types = {"F32": np.float32, "F16": np.float16}
    return {
        name: np.frombuffer(content[8 + length :], np.uint8)[slice(*entry["data_offsets"])]
        .view(types[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in header.items()
    }


@pytest.fixture(scope="module")
def tensors(
    command: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "small.toml").write_text(SMALL)
    command("init", folder / "small.toml", "-o", folder / "w.safetensors", "--seed", 1)
    return read_safetensors(folder / "w.safetensors")


def test_artefacts_are_those_of_the_command_line(
    example_file: Path, command: Callable[..., str], tmp_path: Path
) -> None:
    theirs = tmp_path / "kjv.skp"
    command("compile", f"{EXAMPLE}.toml", "--weights", f"{EXAMPLE}.safetensors", "-o", theirs)
    assert example_file.read_bytes() == theirs.read_bytes()


def test_a_directory_is_a_model(command: Callable[..., str], tmp_path: Path) -> None:
    directory = ROOT / "tests" / "huggingface" / "qwen2-skip"
    artifact = skipc.compile(directory)
    theirs = tmp_path / "qwen2.skp"
    command("compile", directory, "-o", theirs)
    assert bytes(artifact) == theirs.read_bytes()
    tokens = np.load(directory / "tokens.npy")
    scores = skipc.load(artifact).score(tokens)
    assert np.abs(scores.logits - np.load(directory / "logits.npy")).max() < 2e-4
    assert (scores.gates == np.load(directory / "gates.npy")).all()
    assert skipc.load(theirs).verify(weights=directory)["ok"]


def test_routers_of_a_directory(command: Callable[..., str], tmp_path: Path) -> None:
    directory = ROOT / "tests" / "huggingface" / "llama"
    overlay, routers = tmp_path / "skip.toml", tmp_path / "routers.safetensors"
    overlay.write_text('version = 1\nrouter = { type = "sigmoid", bias = true }\n')
    command("init", directory, "--skip", overlay, "-o", routers)
    artifact = skipc.compile(directory, skip=overlay, router_weights=routers)
    scores = skipc.load(artifact).score(np.load(directory / "tokens.npy"))
    assert scores.gates.size and scores.gates.all()
    assert np.abs(scores.logits - np.load(directory / "logits.npy")).max() < 2e-4
    with pytest.raises(skipc.RequestError, match="directories"):
        skipc.compile(SMALL, weights=skipc.RandomWeights(), skip=overlay)
    with pytest.raises(skipc.InputError, match="weights"):
        skipc.compile(SMALL)


def test_the_tokenizer_of_a_directory_is_in_the_artefact(tmp_path: Path) -> None:
    directory = ROOT / "tests" / "huggingface" / "llama3"
    artifact = skipc.compile(directory, max_tokens=64, steps=False)
    artifact.save(tmp_path / "llama3.skp")
    prompt = json.loads((directory / "prompt.json").read_text())
    for model in skipc.load(artifact), skipc.load(tmp_path / "llama3.skp"):
        assert model.encode(prompt["text"]).tolist() == prompt["ids"]
        assert model.decode(prompt["ids"]) == prompt["text"]


def test_same_input_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    artifacts = [
        skipc.compile(spec, weights=skipc.RandomWeights(1)) for spec in (SMALL, path, str(path))
    ]
    assert len({bytes(artifact) for artifact in artifacts}) == 1
    assert bytes(skipc.compile(SMALL, weights=skipc.RandomWeights(2))) != bytes(artifacts[0])
    artifacts[0].save(tmp_path / "m.skp")
    assert (tmp_path / "m.skp").read_bytes() == bytes(artifacts[0])
    assert len(artifacts[0]) == len(bytes(artifacts[0]))
    loaded = [
        skipc.load(source).score([1, 2])
        for source in (artifacts[0], bytes(artifacts[0]), tmp_path / "m.skp")
    ]
    assert len({scores.logits.tobytes() for scores in loaded}) == 1


def test_weights_are_arrays_in_any_layout(tensors: dict[str, np.ndarray]) -> None:
    wanted = bytes(skipc.compile(SMALL, weights=skipc.RandomWeights(1)))
    assert bytes(skipc.compile(SMALL, weights=tensors)) == wanted
    columns = {name: np.asfortranarray(values) for name, values in tensors.items()}
    assert any(not values.flags.c_contiguous for values in columns.values())
    assert bytes(skipc.compile(SMALL, weights=columns)) == wanted
    halves = {name: values.astype(np.float16) for name, values in tensors.items()}
    widened = {name: values.astype(np.float32) for name, values in halves.items()}
    narrow = bytes(skipc.compile(SMALL, weights=halves))
    assert narrow == bytes(skipc.compile(SMALL, weights=widened)) != wanted


def test_weights_that_are_not_the_models(tensors: dict[str, np.ndarray]) -> None:
    first = sorted(tensors)[0]
    broken = tensors[first].copy()
    broken.flat[0] = np.nan
    for changed, code in (
        ({first: tensors[first][:-1]}, "weights::shape"),
        ({first: tensors[first].astype(np.int32)}, "weights::dtype"),
        ({first: broken}, "weights::non_finite"),
        ({"other": tensors[first]}, "weights::extra"),
    ):
        with pytest.raises(skipc.InputError) as caught:
            skipc.compile(SMALL, weights={**tensors, **changed})
        assert caught.value.code == code
    with pytest.raises(skipc.InputError) as caught:
        skipc.compile(SMALL, weights={name: tensors[name] for name in tensors if name != first})
    assert caught.value.code == "weights::missing" and first in caught.value.message


def test_options_change_the_artefact() -> None:
    def compiled(**options: Any) -> dict[str, Any]:
        return skipc.load(skipc.compile(SMALL, weights=skipc.RandomWeights(), **options)).inspect()

    def purposes(contents: dict[str, Any]) -> set[str]:
        return {program["purpose"] for program in contents["programs"]}

    assert purposes(compiled()) == {"score", "step"}
    assert purposes(compiled(steps=False)) == {"score"}
    assert {
        program["max_tokens"] for program in compiled(max_tokens=7, steps=False)["programs"]
    } == {7}
    contents = compiled()
    assert contents["manifest"]["model"] == "small"
    assert contents["manifest"]["compiler"] == skipc.__version__
    assert contents["manifest"]["targets"] == ["cpu"]


def test_what_the_author_should_know_is_a_warning() -> None:
    random = SMALL.replace('router = "sigmoid"', 'router = "topk"')
    with pytest.warns(skipc.ModelWarning) as caught:
        skipc.compile(random, weights=skipc.RandomWeights())
    codes = {str(warning.message).partition(": ")[0] for warning in caught}
    assert "lint::future_leak" in codes
    assert all(Path(warning.filename).name == "test_compile.py" for warning in caught)


def test_every_form_of_the_model_agrees(small: skipc.Model) -> None:
    report = small.verify()
    assert report["ok"] and report["report"]["rows"]
    forms = {row["form"] for row in report["report"]["rows"]}
    assert any("cpu" in form for form in forms), forms


def test_texts_of_objects(small: skipc.Model) -> None:
    assert "small" in repr(small) and small.name == "small" and small.device in repr(small)
    assert (small.vocab_size, small.routers, small.max_positions) == (8, 2, 32)
    assert "bytes" in repr(skipc.compile(SMALL, weights=skipc.RandomWeights()))

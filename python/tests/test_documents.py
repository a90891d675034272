"""Examples in documents and files run as they stand, and the package says what it is."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import skipc

PYTHON = ROOT / "python"


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


def run(program: list[str], folder: Path) -> str:
    ran = subprocess.run(
        [sys.executable, *program], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("document", ["README.md", "python/README.md"])
def test_examples_in_documents(document: str, tmp_path: Path) -> None:
    found = blocks(ROOT / document)
    assert found, f"{document} has no example"
    (tmp_path / "models").symlink_to(ROOT / "models")
    for block in found:
        if "import torch" in block:
            pytest.importorskip("torch")
        assert run(["-c", block], tmp_path), "an example prints what it shows"


@pytest.mark.parametrize(
    "path", sorted((PYTHON / "examples").glob("*.py")), ids=lambda path: path.name
)
def test_examples(path: Path, tmp_path: Path) -> None:
    if "import torch" in path.read_text():
        pytest.importorskip("torch")
    (tmp_path / "models").symlink_to(ROOT / "models")
    assert run([str(path)], tmp_path)


def test_metadata() -> None:
    about = importlib.metadata.metadata("skipc")
    manifest = (ROOT / "Cargo.toml").read_text().split("[workspace.package]")[1].split("\n[")[0]
    (version,) = re.findall(r'^version = "(.*)"$', manifest, re.M)
    (licence,) = re.findall(r'^license = "(.*)"$', manifest, re.M)
    assert about["Version"] == version == skipc.__version__
    assert about["License-Expression"] == licence
    assert "conditional computation" in about["Summary"]
    files = {str(file) for file in importlib.metadata.files("skipc") or []}
    assert {"skipc/py.typed", "skipc/_native.pyi", "skipc/_native.abi3.so"} <= files


def test_pytorch_is_imported_only_where_it_is_asked_for() -> None:
    program = (
        "import sys, skipc; print([name for name in sys.modules if name.split('.')[0] == 'torch'])"
    )
    assert run(["-c", program], Path("/")).strip() == "[]"

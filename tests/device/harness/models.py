"""Runs compiled models through `skipc-run` and compares logits and decisions."""
import json
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Largest distance of an f32 logit from the reference, and of two ways to run the same model in f32.
F32_TOLERANCE = 2e-4
# bf16 logits with the reference's decisions replayed: so many times the error of PyTorch's own bf16 run.
BF16_FACTOR = 3.0
# bf16 logits where there is no such figure: root mean square error relative to the logits' own.
BF16_COARSE = 16.0 / 256.0


class RunFailed(Exception):
    pass


@dataclass
class Golden:
    """One run of the reference; see `tests/golden/README.md`."""

    name: str
    tokens_file: Path
    tokens: np.ndarray
    logits: np.ndarray
    gates: np.ndarray
    greedy: np.ndarray
    figures: dict
    model: str
    # None if all rows are whole.
    lengths: np.ndarray | None = None

    @property
    def counted(self):
        """Which places of the batch hold a token: past its length, a row's logits and decisions are 0 and tell nothing."""
        n_rows, width = self.tokens.shape
        lengths = np.full(n_rows, width) if self.lengths is None else self.lengths
        return np.arange(width) < lengths[:, None]

    @property
    def n_tokens(self):
        return int(self.counted.sum())

    @property
    def generates(self):
        """Whether the model can write text: decisions of some depend on later tokens."""
        return self.figures["nearest_greedy_logit"] is not None


def golden_cases(folder):
    cases = []
    for place in sorted(path.parent for path in Path(folder).glob("*/case.json")):
        figures = json.loads((place / "case.json").read_text())
        arrays = [np.load(place / f"{name}.npy") for name in ("tokens", "logits", "gates", "greedy")]
        # Cases of a shipped model name it; others bring their own.
        model = place.name if figures["spec"] == "spec.toml" else Path(figures["spec"]).stem
        lengths = np.load(place / "lengths.npy") if (place / "lengths.npy").exists() else None
        cases.append(Golden(place.name, place / "tokens.npy", *arrays, figures, model, lengths))
    return cases


@dataclass
class Ran:
    logits: np.ndarray
    gates: np.ndarray
    seconds: float


class Runner:
    """Calls the folder's `skipc-run`; files that it needs go to `scratch`."""

    def __init__(self, folder, scratch, timeout=60.0):
        self.program = str(Path(folder) / "bin/skipc-run")
        self.scratch = Path(scratch)
        self.timeout = timeout

    def call(self, *args):
        command = [self.program, *map(str, args)]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=self.timeout)
        except subprocess.TimeoutExpired:
            raise RunFailed(f"no end after {self.timeout:.0f} s") from None
        if ran.returncode:
            raise RunFailed(f"exit code {ran.returncode}: {ran.stderr.strip()[:600]}")
        return ran.stdout

    def run(self, label, model, device, tokens, lengths=None, routing=None, checked=True):
        """One step over `tokens` (a file or an array)."""
        stem = self.scratch / re.sub(r"[^\w.-]", "_", label)
        logits, gates = Path(f"{stem}.logits.npy"), Path(f"{stem}.gates.npy")
        args = [model, "--device", device, "--threads", 2, "--logits", logits, "--routing-out", gates]
        args += ["--tokens", self.file(f"{stem}.tokens.npy", tokens)]
        if lengths is not None:
            args += ["--lengths", self.file(f"{stem}.lengths.npy", np.asarray(lengths, np.int32))]
        if routing is not None:
            args += ["--routing", self.file(f"{stem}.routing.npy", routing)]
        if checked:
            args.append("--checked")
        began = time.monotonic()
        self.call(*args)
        ran = Ran(np.load(logits), np.load(gates), time.monotonic() - began)
        for used in (logits, gates):
            used.unlink()
        return ran

    def greedy(self, label, model, device, golden):
        """The continuation of row 0 by as many tokens as the reference has."""
        stem = self.scratch / re.sub(r"[^\w.-]", "_", label)
        tokens = self.file(f"{stem}.row.npy", golden.tokens[:1, golden.counted[0]])
        count = len(golden.greedy)
        text = self.call("generate", model, "--device", device, "--tokens", tokens, "--max-new-tokens", count)
        return np.array([int(word) for word in text.split()], dtype=np.int64)

    @staticmethod
    def file(path, array):
        if isinstance(array, Path):
            return array
        np.save(path, array)
        return path


def worst(got, wanted):
    """The largest distance and where; NaN and infinity are the largest of all."""
    if got.shape != wanted.shape:
        raise RunFailed(f"the logits have shape {list(got.shape)}, expected {list(wanted.shape)}")
    if not got.size:
        return 0.0, ()
    off = np.abs(got.astype(np.float64) - wanted)
    off = np.where(np.isfinite(off), off, np.inf)
    at = int(np.argmax(off))
    return float(off.flat[at]), tuple(int(i) for i in np.unravel_index(at, off.shape))


def rms(values):
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def rmse(got, wanted):
    if got.shape != wanted.shape:
        raise RunFailed(f"the logits have shape {list(got.shape)}, expected {list(wanted.shape)}")
    off = rms(got.astype(np.float64) - wanted)
    return off if np.isfinite(off) else float("inf")


def same_gates(got, wanted):
    """Complains about the first decision that differs, with how many do."""
    if got.shape != wanted.shape:
        raise RunFailed(f"the decisions have shape {list(got.shape)}, expected {list(wanted.shape)}")
    differ = np.argwhere(got != wanted)
    if len(differ):
        router, row, token = differ[0]
        raise RunFailed(
            f"{len(differ)} decisions differ, first of router {router} in row {row} at token {token}:"
            f" {got[router, row, token]}, expected {wanted[router, row, token]}"
        )

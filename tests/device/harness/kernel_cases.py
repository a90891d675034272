"""Kernel cases as files, and what is right or wrong about the operands after a run.

The format is that of `tests/support/src/replay.rs`; the rules are those of `tests/support/src/tolerance.rs`.
"""
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VERSION = 3
WIDTHS = {"f32": 4, "bf16": 2, "u32": 4, "u8": 1}


@dataclass
class Param:
    name: str
    dtype: str
    cols: int


@dataclass
class Output:
    """What a written parameter should be: f64 values, and how far off each may be.

    Allowance 0 asks for the value's own bits, a negative one for what stood there before.
    """

    param: int
    values: np.ndarray
    allowances: np.ndarray


@dataclass
class Case:
    name: str
    kernel: int
    # Whether there is one possible result, to the bit.
    exact: bool
    max_rows: int
    params: list
    operands: list
    outputs: list


@dataclass
class Verdict:
    """What came of a case: the largest share of an allowance, what is wrong, what the PTX machine says to its bits."""

    used: float | None
    wrong: str | None
    # `machine.SAME`, what differs, or None if nothing was compared.
    bits: str | None = None


class Suite:
    """All cases of a folder. Arrays are views of one mapped file."""

    def __init__(self, folder):
        folder = Path(folder)
        index = json.loads((folder / "index.json").read_text())
        if index["version"] != VERSION:
            raise ValueError(f"kernel cases have format {index['version']}, this harness reads {VERSION}")
        self.data = np.memmap(folder / "data.bin", dtype=np.uint8, mode="r")
        self.kernels = index["kernels"]
        self.cases = [self._case(entry) for entry in index["cases"]]

    def _part(self, part):
        end = part["offset"] + part["bytes"]
        if end > len(self.data):
            raise ValueError("data.bin is shorter than index.json says")
        return self.data[part["offset"] : end]

    def _case(self, entry):
        kernel = self.kernels[entry["kernel"]]["kernel"]
        params = [Param(p["name"], p["dtype"], p["cols"]) for p in kernel["params"]]
        operands = [self._part(part) for part in entry["operands"]]
        outputs = [
            Output(o["param"], self._part(o["values"]).view("<f8"), self._part(o["allowances"]).view("<f8"))
            for o in entry["expected"]
        ]
        for output in outputs:
            n = len(operands[output.param]) // WIDTHS[params[output.param].dtype]
            if not len(output.values) == len(output.allowances) == n:
                raise ValueError(f"{entry['name']}: an output is not as long as its operand")
        return Case(entry["name"], entry["kernel"], entry["exact"], entry["max_rows"], params, operands, outputs)


def decode(dtype, data):
    """The elements of an operand as f64."""
    data = np.ascontiguousarray(data)
    with np.errstate(invalid="ignore"):  # Poison may be a signalling NaN.
        if dtype == "f32":
            return data.view("<f4").astype(np.float64)
        if dtype == "bf16":
            return (data.view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return data.view({"u32": "<u4", "u8": "u1"}[dtype]).astype(np.float64)


def encode(dtype, values):
    """f64 values rounded to the nearest of a type, as bytes; the values are finite or NaN."""
    if dtype == "bf16":
        bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return bits.astype("<u2").view(np.uint8)
    return values.astype({"f32": "<f4", "u32": "<u4", "u8": "u1"}[dtype]).view(np.uint8)


def shares(output, dtype, before, after):
    """For each element of an output, which share of its allowance it uses; infinity where it must be exact and is not."""
    width = WIDTHS[dtype]
    got = decode(dtype, after)
    changed = (np.asarray(before).reshape(-1, width) != np.asarray(after).reshape(-1, width)).any(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.abs(got - output.values)
        used = np.where(off == 0, 0.0, off / output.allowances)
    same_bits = got.view(np.uint64) == np.ascontiguousarray(output.values).view(np.uint64)
    used = np.where(output.allowances == 0, np.where(same_bits, 0.0, np.inf), used)
    used = np.where(np.isfinite(got), used, np.inf)
    used = np.where(np.isnan(output.values), np.where(np.isnan(got), 0.0, np.inf), used)
    return np.where(output.allowances < 0, np.where(changed, np.inf, 0.0), used)


def check(case, after):
    """The largest share of its allowance that an element used, and what is wrong in words, or None."""
    outputs = {output.param: output for output in case.outputs}
    worst, wrong = 0.0, None
    for idx, (param, before) in enumerate(zip(case.params, case.operands)):
        if idx not in outputs:
            if not np.array_equal(before, after[idx]):
                wrong = wrong or f"`{param.name}` is only read but has changed"
                worst = np.inf
            continue
        used = shares(outputs[idx], param.dtype, before, after[idx])
        if not len(used):
            continue
        at = int(np.argmax(used))
        if used[at] > 1 and wrong is None:
            wrong = _describe(outputs[idx], param, after[idx], at, int((used > 1).sum()))
        worst = max(worst, float(used[at]))
    return worst, wrong


def _describe(output, param, after, at, n_wrong):
    got = decode(param.dtype, after)[at]
    allowed = output.allowances[at]
    want = "untouched" if allowed < 0 else f"{output.values[at]:e} ± {allowed:e}"
    row, col = divmod(at, param.cols)
    return f"`{param.name}` ({row}, {col}) is {got:e}, should be {want}; {n_wrong} of {len(output.values)} wrong"


def ideal(case):
    """Operands as a perfect kernel would leave them."""
    after = [np.array(operand) for operand in case.operands]
    for output in case.outputs:
        param = case.params[output.param]
        written = output.allowances >= 0
        width = WIDTHS[param.dtype]
        rows = after[output.param].reshape(-1, width)
        rows[written] = encode(param.dtype, np.array(output.values)[written]).reshape(-1, width)
    return after

"""What the PTX machine made of the same kernels, for a comparison with a GPU, bit for bit.

The format is that of `../kernel_results.rs`. Only cases with one possible result are there: nothing in them rounds but a
store, so that a bit that differs is an error of the kernel on one of the two, inside every allowance or not.
"""
import json
from pathlib import Path

import numpy as np

from .kernel_cases import WIDTHS

VERSION = 1
# The check's name in the results.
CHECK = "ptx-machine"
SAME = "same"


class Machine:
    """Results by the names of cases. Arrays are views of one mapped file."""

    def __init__(self, place):
        index = json.loads((place / "machine.json").read_text())
        if index["version"] != VERSION:
            raise ValueError(f"results of the PTX machine have format {index['version']}, this harness reads {VERSION}")
        path = place / "machine.bin"
        data = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
        self.outputs = {}
        for entry in index["cases"]:
            outputs = [(output["param"], output["part"]) for output in entry["outputs"]]
            if any(part["offset"] + part["bytes"] > len(data) for _, part in outputs):
                raise ValueError("machine.bin is shorter than machine.json says")
            parts = [(param, data[part["offset"] : part["offset"] + part["bytes"]]) for param, part in outputs]
            self.outputs[entry["name"]] = parts

    def compare(self, case, operands):
        """`SAME` or what differs in words; None if the machine did not run the case."""
        if case.name not in self.outputs:
            return None
        outputs = self.outputs[case.name]
        if [param for param, _ in outputs] != sorted(output.param for output in case.outputs):
            return "the PTX machine wrote other parameters"
        said = [_difference(case.params[idx], operands[idx], bits) for idx, bits in outputs]
        return next((what for what in said if what), SAME)


def load(place):
    """The results beside the code of a target, or None if the build has none."""
    place = Path(place)
    return Machine(place) if (place / "machine.json").exists() else None


def _difference(param, got, wanted):
    if len(got) != len(wanted):
        return f"`{param.name}` has {len(got)} bytes, {len(wanted)} on the PTX machine"
    differ = np.flatnonzero(np.asarray(got) != wanted)
    if not len(differ):
        return None
    width = WIDTHS[param.dtype]
    elements = np.unique(differ // width)
    at = int(elements[0])
    row, col = divmod(at, param.cols)
    here, there = (bytes(side[at * width : (at + 1) * width])[::-1].hex() for side in (got, wanted))
    n = len(got) // width
    return f"`{param.name}` ({row}, {col}) is 0x{here}, 0x{there} on the PTX machine; {len(elements)} of {n} differ"

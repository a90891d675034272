"""In place of a GPU for the self-check: every kernel is perfect, but for the faults that were asked for."""
import os
import time

import numpy as np

from .cuda_driver import CudaError
from .gpu import GUARD, Arena
from .kernel_cases import WIDTHS, ideal, shares

FAULTS = ("hang", "die", "device_error", "element", "nan", "untouched", "read_only", "stray", "unstable", "bit")


class StandIn:
    """`faults` gives the fault of a case by the case's name."""

    def __init__(self, faults):
        self.faults = faults

    def load(self, image):
        if b"refuse this" in image:
            raise CudaError("cuModuleLoadDataEx", 218, "CUDA_ERROR_INVALID_PTX")
        return None

    def run(self, case, _module, _symbol, _launch, fill):
        fault = self.faults.get(case.name)
        if fault == "hang":
            time.sleep(3600)
        if fault == "die":
            os._exit(139)
        if fault == "device_error":
            raise CudaError("cuCtxSynchronize", 700, "CUDA_ERROR_ILLEGAL_ADDRESS")
        arena = Arena(case, fill)
        for operand, after in zip(arena.operands(), ideal(case)):
            operand[:] = after
        plant(case, arena, fault, fill)
        return arena


def tolerated_bit(case):
    """A parameter and the byte in it whose lowest bit may be flipped within the allowance; None if there is none."""
    for output, after in ((output, ideal(case)[output.param]) for output in case.outputs):
        dtype = case.params[output.param].dtype
        after[:: WIDTHS[dtype]] ^= 1
        fine = (output.allowances > 0) & (shares(output, dtype, case.operands[output.param], after) <= 1)
        if fine.any():
            return output.param, int(np.flatnonzero(fine)[-1]) * WIDTHS[dtype]
    return None


def plant(case, arena, fault, fill):
    """Makes one thing wrong in what a perfect kernel left. Asserts that the case has room for the fault."""
    operands = arena.operands()
    output = case.outputs[0]
    target, width = operands[output.param], len(operands[output.param]) // max(len(output.values), 1)
    written = np.flatnonzero(output.allowances >= 0)
    kept = np.flatnonzero(output.allowances < 0)
    if fault == "element":
        # The highest bit of the exponent, or 64 of a byte.
        target[(written[-1] + 1) * width - 1] ^= 0x40
    elif fault == "unstable":
        # The lowest bit, which a tolerance allows, in one of the two runs.
        target[written[-1] * width] ^= fill & 1
    elif fault == "bit":
        param, at = tolerated_bit(case)
        operands[param][at] ^= 1
    elif fault == "nan":
        target[written[0] * width : (written[0] + 1) * width] = 0xFF
    elif fault == "untouched":
        target[kept[0] * width] ^= 1
    elif fault == "read_only":
        read = next(i for i in range(len(operands)) if all(o.param != i for o in case.outputs))
        operands[read][0] ^= 1
    elif fault == "stray":
        arena.bytes[arena.spans[-1][1] + GUARD // 2] ^= 1

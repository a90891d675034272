"""Runs some kernel cases in a process of its own, since a bad kernel takes its process with it.

    python -m harness.kernel_worker < REQUEST

The request is a JSON object: `folder`, `target`, `code` ("cubin" or "ptx"), `modules` (for each its name and indices of
cases), `separate`, `machine` (whether to compare with the PTX machine), and `device` ("cuda", or the faults of a stand-in for the self-check).
Each line of output is a JSON object: `{"loading": MODULE}`, `{"running": CASE}`, `{"done": CASE, "used", "wrong", "bits"}`.
An error of the device while a kernel runs ends the process after its line.
"""
import json
import sys
from pathlib import Path

import numpy as np

from . import machine
from .cuda_driver import CudaError
from .kernel_cases import Suite, Verdict, check

# Two runs with other bytes around the operands: NaN as f32 and bf16 and out of range as an index, then a large number.
# A kernel whose results depend on bytes that are not its own, or on the order of its threads, gives other bits.
FILLS = (0xFF, 0x5A)


def say(**line):
    print(json.dumps(line), flush=True)


def done(case, verdict):
    used = verdict.used if np.isfinite(verdict.used) else None
    say(done=case, used=used, wrong=verdict.wrong, bits=verdict.bits)


def code_of(folder, target):
    """What was compiled for a target: modules by name, and launches by kernel."""
    place = Path(folder) / target.replace(":", "-")
    return place, json.loads((place / "code.json").read_text())


def run_case(device, module, case, kernel, wanted=None):
    """Runs a case and checks it; the first run is compared with the PTX machine's, if its results are `wanted`."""
    launch = kernel["launch"]["cuda"]
    runs, bits = [], None
    for fill in FILLS:
        arena = device.run(case, module, kernel["symbol"], launch, fill)
        used, wrong = check(case, arena.operands())
        if wanted and not runs:
            bits = wanted.compare(case, arena.operands())
        wrong = wrong or arena.stray()
        if wrong:
            return Verdict(used, wrong, bits)
        runs.append(arena.operands())
    for param, first, second in zip(case.params, *runs):
        if not np.array_equal(first, second):
            return Verdict(used, f"`{param.name}` differs between two runs on the same operands", bits)
    return Verdict(used, None, bits)


def open_device(request):
    if request["device"] == "cuda":
        from .gpu import Gpu

        return Gpu(separate=request["separate"])
    from .stand_in import StandIn

    return StandIn(request["device"])


def main():
    request = json.load(sys.stdin)
    suite = Suite(request["folder"])
    place, code = code_of(request["folder"], request["target"])
    kernels = {kernel["kernel"]: kernel for module in code["modules"] for kernel in module["kernels"]}
    wanted = machine.load(place) if request["machine"] else None
    device = open_device(request)
    for name, indices in request["modules"]:
        say(loading=name)
        try:
            module = device.load((place / f"{name}.{request['code']}").read_bytes())
        except CudaError as error:
            for idx in indices:
                done(idx, Verdict(np.inf, str(error)))
            continue
        for idx in indices:
            say(running=idx)
            case = suite.cases[idx]
            try:
                done(idx, run_case(device, module, case, kernels[case.kernel], wanted))
            except CudaError as error:
                done(idx, Verdict(np.inf, str(error)))
                return


if __name__ == "__main__":
    main()

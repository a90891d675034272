"""Self-checks of the kernel half. Each yields (what, None or what is wrong)."""
import json
import time
from pathlib import Path

import numpy as np

from .kernel_cases import WIDTHS, Suite, decode, encode, check
from .kernel_pool import Limits
from .kernel_worker import run_case
from .kernels import run_kernels
from .report import Quiet, Skipped
from .stand_in import StandIn

TILES = [{"from": 0, "rows": 16, "across": 1}]
KERNEL = {"symbol": "kernel", "launch": {"cuda": {"tiles": TILES, "threads": 32, "shared_bytes": 0}}}


def perfect_kernels_pass(folder, _scratch):
    suite = Suite(folder / "kernels")
    yield "there are many cases", None if len(suite.cases) > 500 else f"only {len(suite.cases)}"
    for case in suite.cases:
        verdict = run_case(StandIn({}), None, case, KERNEL)
        yield case.name, verdict.wrong or (None if verdict.used <= 1 else f"{verdict.used} of the allowance used")


def planted_faults_are_found(folder, _scratch):
    suite = Suite(folder / "kernels")
    found = dict.fromkeys(("element", "nan", "untouched", "read_only", "stray", "unstable", "nothing"), 0)
    for case in suite.cases:
        for fault in faults_for(case):
            wrong = run_case(StandIn({case.name: fault}), None, case, KERNEL).wrong
            found[fault] += wrong is not None
            if wrong is None:
                yield f"{case.name} {fault}", "the fault was not found"
        if any((output.allowances >= 0).any() for output in case.outputs):
            _, wrong = check(case, case.operands)
            found["nothing"] += wrong is not None
            if wrong is None:
                yield f"{case.name} nothing", "a kernel that does nothing passes"
    for fault, n in found.items():
        yield fault, None if n > 100 else f"was planted in {n} cases only"


def faults_for(case):
    """Which faults a case has room for."""
    yield "stray"
    output = case.outputs[0]
    if len(case.outputs) < len(case.params) and len(case.operands[0]) and all(o.param != 0 for o in case.outputs):
        yield "read_only"
    if (output.allowances < 0).any():
        yield "untouched"
    written = np.flatnonzero(output.allowances >= 0)
    if len(written):
        yield from ("element", "nan")
        if case.params[output.param].dtype == "f32" and output.allowances[written[-1]] > 0:
            # An allowance is a unit in the last place at least, and the ideal uses half of one at most.
            yield "unstable"


def numbers_survive(_folder, _scratch):
    rng = np.random.default_rng(1)
    for dtype in WIDTHS:
        values = rng.integers(0, 200, 1000).astype(np.float64) - (100 if dtype in ("f32", "bf16") else 0)
        back = decode(dtype, encode(dtype, values))
        yield dtype, None if np.array_equal(back, values) else "encoding and decoding gives other numbers"
    halves = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-20])
    even = decode("bf16", encode("bf16", halves)).tolist()
    yield "bf16 rounds to even", None if even == [1.0, 1 + 2.0**-6, 1 + 2.0**-7] else f"{even}"


def workers_fail_alone(folder, scratch):
    """Faults that take a process with them cost their own case and no other."""
    suite = Suite(folder / "kernels")
    place = pretend_code(folder, Path(scratch) / "pretend")
    roomy = [c for c in suite.cases[:96] if "element" in faults_for(c)]
    planted = dict(zip((case.name for case in roomy[3::5]), ("hang", "die", "device_error", "element", "die", "hang")))
    results = Quiet()
    limits = Limits(start=60, loading=60, running=4)
    run_kernels(place, "cuda:pretend", "cubin", results, time.monotonic() + 600, 2, device=planted, limits=limits)
    entries = {entry["name"]: entry for entry in results.document["cases"]}
    yield "every case has an entry", None if len(entries) == len(suite.cases) else f"{len(entries)}"
    for case in suite.cases:
        entry = entries[case.name]
        wanted, detail = expected_verdict(case, planted)
        right = entry["status"] == wanted and (detail is None or detail in entry.get("detail", ""))
        yield case.name, None if right else f"{entry}, wanted {wanted} {detail}"
    yield "six faults were planted", None if len(planted) == 6 else f"{len(planted)}"


DETAILS = {
    "hang": "nothing happened for 4 s",
    "die": "ended with",
    "device_error": "CUDA_ERROR_ILLEGAL_ADDRESS",
    "element": "should be",
}


def expected_verdict(case, planted):
    if case.name in planted:
        return "failed", DETAILS[planted[case.name]]
    if case.kernel == UNSUPPORTED:
        return "skipped", "no code"
    if case.kernel == BROKEN:
        return "failed", "no code"
    if case.kernel >= FIRST_LOST:
        return "failed", "in no module"
    if case.kernel in REFUSED_MODULE:
        return "failed", "CUDA_ERROR_INVALID_PTX"
    return "passed", None


# Kernels of the pretended code: modules of this size from the first kernel on, the last of which the driver refuses;
# then two without code, each for its reason; the rest is nowhere.
MODULE, N_MODULES = 32, 4
REFUSED_MODULE = range(96, 128)
UNSUPPORTED, BROKEN, FIRST_LOST = 128, 129, 130


def pretend_code(folder, place):
    """A folder with the real cases and code that only the stand-in takes."""
    refused = [
        {"kernel": UNSUPPORTED, "unsupported": True, "why": "no such instruction"},
        {"kernel": BROKEN, "unsupported": False, "why": "an internal error"},
    ]
    target = write_code(folder, place, [range(at * MODULE, (at + 1) * MODULE) for at in range(N_MODULES)], refused)
    (target / f"{N_MODULES - 1:03}.cubin").write_bytes(b"refuse this")
    return place


def write_code(folder, place, modules, refused):
    """The real cases with modules of these kernels, for the stand-in; gives the folder of the code."""
    kernels = place / "kernels"
    target = kernels / "cuda-pretend"
    target.mkdir(parents=True)
    for name in ("index.json", "data.bin"):
        (kernels / name).symlink_to(folder / "kernels" / name)
    named = []
    for number, members in enumerate(modules):
        named.append({"name": f"{number:03}", "kernels": [{"kernel": kernel, **KERNEL} for kernel in members]})
        (target / f"{number:03}.cubin").write_bytes(b"code")
    (target / "code.json").write_text(json.dumps({"modules": named, "refused": refused}))
    return target


def late_cases_are_skipped(folder, scratch):
    place = pretend_code(folder, Path(scratch) / "late")
    results = Quiet()
    run_kernels(place, "cuda:pretend", "cubin", results, 0.0, 2, device={})
    entry = results.document["cases"][0]
    yield "out of time", None if (entry["status"], entry["detail"]) == ("skipped", "out of time") else f"{entry}"


def built_code_is_complete(folder, _scratch):
    """Every kernel is in a module or refused, and modules are what their names say."""
    build = json.loads((folder / "build.json").read_text())
    suite = Suite(folder / "kernels")
    if not build["cuda"]:
        yield "code", Skipped("this build has no CUDA code")
    for target in build["targets"] if build["cuda"] else []:
        place = folder / "kernels" / target.replace(":", "-")
        code = json.loads((place / "code.json").read_text())
        there = [kernel["kernel"] for module in code["modules"] for kernel in module["kernels"]]
        there += [refused["kernel"] for refused in code["refused"]]
        complete = sorted(there) == list(range(len(suite.kernels)))
        yield f"{target} is complete", None if complete else f"{len(there)} of {len(suite.kernels)} kernels"
        for module in code["modules"]:
            ptx = (place / f"{module['name']}.ptx").read_text()
            cubin = (place / f"{module['name']}.cubin").read_bytes()
            missing = [k["symbol"] for k in module["kernels"] if f".entry {k['symbol']}(" not in ptx]
            missing += [k["symbol"] for k in module["kernels"] if k["symbol"].encode() not in cubin]
            elf = cubin.startswith(b"\x7fELF")
            yield f"{target} {module['name']}", None if elf and not missing else f"ELF: {elf}; without {missing[:3]}"


KERNEL_CHECKS = [
    numbers_survive,
    perfect_kernels_pass,
    planted_faults_are_found,
    workers_fail_alone,
    late_cases_are_skipped,
    built_code_is_complete,
]

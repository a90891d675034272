"""The whole run, phase by phase; `../run.sh --help` prints how to call it."""
import argparse
import lzma
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from . import environment
from .kernel_cases import Suite
from .kernels import run_kernels
from .machine import CHECK
from .model_plan import Plan, run_jobs
from .models import Runner
from .report import Results
from .sanitizer import run_sanitizer
from .self_check import self_check

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent.parent

# Shares of the time limit at which phases end, the most telling ones first.
KERNELS_UNTIL, MODELS_UNTIL, OLDER_UNTIL = 0.35, 0.75, 0.95


def arguments():
    parser = argparse.ArgumentParser(prog="tests/device/run.sh", description="Runs compiled kernels and models on a GPU")
    parser.add_argument("folder", nargs="?", default=REPOSITORY / "target/device", help="what build.sh made")
    parser.add_argument("--out", metavar="RESULTS.json", help="by default a file of its own in tests/device/results")
    parser.add_argument("--self-check", action="store_true", help="run what needs no GPU: the harness and the host's code")
    parser.add_argument("--sanitizer", action="store_true", help="also run some kernels under compute-sanitizer")
    parser.add_argument("--limit", type=float, default=540.0, metavar="SECONDS", help="stop after this long (540)")
    parser.add_argument("--workers", type=int, default=min(6, os.cpu_count() or 1), metavar="N", help="processes at once")
    return parser.parse_args()


def unpack(folder, scratch):
    """A copy of the folder with its compressed files as they were, and programs that may be started."""
    copy = scratch / "build"
    for source in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = copy / source.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".xz":
            with lzma.open(source) as packed, open(target.with_suffix(""), "wb") as plain:
                shutil.copyfileobj(packed, plain)
        else:
            shutil.copy(source, target)
    (copy / "bin/skipc-run").chmod(0o755)
    return copy


def kernel_forms(targets, compute):
    """Which code of which target this GPU runs: machine code made for it, and what the driver makes of older PTX."""
    native, older = [], []
    for target in targets:
        digits, exact = re.fullmatch(r"cuda:sm_(\d+)(a?)", target).groups()
        arch = (int(digits) // 10, int(digits) % 10)
        if arch == compute or (not exact and arch[0] == compute[0] and arch <= compute):
            native.append((arch, target))
        elif not exact and arch < compute:
            older.append((arch, target))
    return ([(max(native)[1], "cubin")] if native else []), ([(max(older)[1], "ptx")] if older else [])


def default_out(about):
    name = "-".join([about["date"].replace(":", ""), about["device"], about["commit"][:12]])
    return HERE.parent / "results" / (re.sub(r"[^\w.-]+", "-", name) + ".json")


def skip_kernels(folder, results, why):
    for case in Suite(folder / "kernels").cases:
        entry = {"name": case.name, "target": "cuda", "code": "none", "status": "skipped", "detail": why}
        results.add_case(entry)
        if case.exact:
            results.add_machine({**entry, "check": CHECK})


def run(options, folder, scratch):
    began = time.monotonic()

    def until(share):
        return began + share * options.limit

    about = environment.describe(folder)
    out = Path(options.out) if options.out else default_out(about)
    results = Results(out, about)
    compute = tuple(about["gpu"].get("compute", ())) or None
    gpu = compute is not None and about["build"]["cuda"]
    results.note(f"{about['device']}, driver {about['driver']}, commit {about['commit']}")
    native, older = kernel_forms(about["build"]["targets"], compute) if gpu else ([], [])
    if not gpu:
        why = "this build has no CUDA code" if compute else f"there is no GPU ({about['gpu']['missing']})"
        results.note(f"{why}: nothing of CUDA is run")
        skip_kernels(folder, results, why)
    for target, form in native:
        run_kernels(folder, target, form, results, until(KERNELS_UNTIL), options.workers)
        results.save()
    jobs = Plan(folder, Runner(folder, scratch), gpu).jobs()
    run_jobs(jobs, results, until(MODELS_UNTIL), options.workers)
    results.save()
    for target, form in older:
        run_kernels(folder, target, form, results, until(OLDER_UNTIL), options.workers)
        results.save()
    if options.sanitizer and native:
        run_sanitizer(folder, native[0][0], results, until(1.0))
    timings(results)
    results.save()
    print(f"\n{results.table()}\n{time.monotonic() - began:.0f} s; {out}")
    return 0 if (native or older) and not results.counts()["failed"] else 3


def timings(results):
    """The place for the median time of a step of the example, by number of tokens, after a warm-up.

    `skipc-run` tells no times yet, and a process's own time is mostly that of starting it, so there are none.
    """
    results.note("timings: none, skipc-run does not report the time of a step")


def main():
    options = arguments()
    folder = Path(options.folder).resolve()
    if not (folder / "build.json").exists():
        print(f"{folder} holds no build: run tests/device/build.sh on a machine with Rust", file=sys.stderr)
        return 3
    with tempfile.TemporaryDirectory(prefix="skipc-device-") as scratch:
        scratch = Path(scratch)
        folder = unpack(folder, scratch)
        if options.self_check:
            return self_check(folder, scratch, options.out)
        return run(options, folder, scratch)


if __name__ == "__main__":
    sys.exit(main())

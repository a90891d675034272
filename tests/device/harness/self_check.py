"""The harness judged without a GPU: what is right must pass, and every planted fault must be found."""
import time

from .check_kernels import KERNEL_CHECKS
from .check_models import MODEL_CHECKS
from .environment import describe
from .report import Results


def self_check(folder, models, program, scratch, out):
    """Runs all checks; ends with 3 if one did not hold."""
    results = Results(out, describe(folder))
    results.note(f"self-check of the harness, commit {results.document['commit']}; nothing runs on a GPU")
    for check in KERNEL_CHECKS:
        name = check.__name__
        began = time.monotonic()
        for what, wrong in check(folder, scratch):
            record(results, results.add_case, {"target": "self-check", "code": name}, what, wrong)
        print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
        results.save()
    for check in MODEL_CHECKS:
        name = check.__name__
        began = time.monotonic()
        for what, wrong in check(folder, models, program, scratch):
            record(results, results.add_model, {"form": "self-check", "check": name}, what, wrong)
        print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
        results.save()
    print(f"\n{results.table()}")
    return 3 if results.counts()["failed"] else 0


def record(results, add, entry, what, wrong):
    entry = {"name": what, **entry, "status": "failed" if wrong else "passed"}
    if wrong:
        entry["detail"] = wrong
    add(entry)

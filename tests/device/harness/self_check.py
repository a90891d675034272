"""The harness checked without a GPU: what is right must pass, and every planted fault must be found."""
import time
import traceback

from .check_kernels import KERNEL_CHECKS
from .check_machine import MACHINE_CHECKS
from .check_models import MODEL_CHECKS
from .environment import describe
from .report import Results, Skipped


def self_check(folder, scratch, out):
    """Runs all checks; ends with 3 if one did not hold."""
    results = Results(out, describe(folder))
    results.note(f"self-check of the harness, commit {results.document['commit']}; nothing runs on a GPU")
    for check in KERNEL_CHECKS:
        run_check(check, folder, scratch, results, results.add_case, {"target": "self-check", "code": check.__name__})
    for check in MACHINE_CHECKS:
        run_check(check, folder, scratch, results, results.add_machine, {"target": "self-check", "code": check.__name__})
    for check in MODEL_CHECKS:
        run_check(check, folder, scratch, results, results.add_model, {"form": "self-check", "check": check.__name__})
    print(f"\n{results.table()}")
    return 3 if results.counts()["failed"] else 0


def run_check(check, folder, scratch, results, add, about):
    """A check that breaks has failed; the others run all the same."""
    began = time.monotonic()
    try:
        for what, wrong in check(folder, scratch):
            status = "skipped" if isinstance(wrong, Skipped) else "failed" if wrong else "passed"
            outcome = {"status": status, **({"detail": wrong} if wrong else {})}
            add({"name": what, **about, **outcome})
    except Exception:
        add({"name": "all of it", **about, "status": "failed", "detail": traceback.format_exc(limit=-3)})
    print(f"{check.__name__}: {time.monotonic() - began:.1f} s", flush=True)
    results.save()

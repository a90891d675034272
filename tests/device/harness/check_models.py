"""Self-checks of the model half: host code of the artefacts, then faults planted into its results.

Each yields (what, None or what is wrong).
"""
import dataclasses
import stat
import time
from types import SimpleNamespace

import numpy as np

from . import model_checks as checks
from .model_plan import Job, Plan, run_jobs
from .models import RunFailed, Runner
from .report import Quiet

FAULTY = ("gumbel", "wrap-mixed-routers")


def outcomes(jobs, n_workers=2):
    results = Quiet()
    run_jobs(list(jobs), results, time.monotonic() + 600, n_workers)
    return results.document["models"]


def host_code_agrees_with_the_reference(folder, scratch):
    plan = Plan(folder, Runner(folder, scratch), gpu=False)
    yield "there are many cases", None if len(plan.golden) >= 30 else f"only {len(plan.golden)}"
    for entry in outcomes(plan.jobs()):
        yield f"{entry['name']} {entry['check']}", entry.get("detail")


def pairs_of_host_and_host_agree(folder, scratch):
    """The checks of a device against the host, with the host for both."""
    plan = Plan(folder, Runner(folder, scratch), gpu=False)
    jobs = [job for golden in plan.golden for job in plan.pairs(golden, "cpu", "f32", "cpu")]
    for kind in ("forced-all", "forced-none", "ragged-0-0-0", "ragged-160-0-1"):
        n = sum(job.check == kind for job in jobs)
        yield f"{kind} is checked", None if n else "by no job"
    for entry in outcomes(jobs):
        yield f"{entry['name']} {entry['check']}", entry.get("detail")


class Faulty(Runner):
    """Spoils what comes back: `spoil` gets the results of a step and their number, counted from 1."""

    def __init__(self, folder, scratch, spoil):
        super().__init__(folder, scratch)
        self.spoil, self.n_runs = spoil, 0

    def run(self, *args, **options):
        ran = super().run(*args, **options)
        self.n_runs += 1
        return self.spoil(ran, self.n_runs) or ran

    def greedy(self, *args):
        new = super().greedy(*args)
        new[-1] ^= 1
        return new


def a_logit(by):
    def spoil(ran, _n):
        ran.logits.flat[ran.logits.size // 2] += by

    return spoil


def one_bit_of_the_second_run(ran, n):
    if n % 2 == 0:
        ran.logits.view(np.uint32).flat[0] ^= 1


def a_decision_of_the_device(ran, n):
    if n % 2 == 0:
        ran.gates[-1, 0, 0] ^= 1


def a_decision(ran, _n):
    ran.gates[-1, 0, -1] ^= 1


def a_logit_of_the_device(ran, n):
    if n % 2 == 0:
        ran.logits[0, 0, 0] += 3e-4


def a_row_less(ran, _n):
    return dataclasses.replace(ran, logits=ran.logits[:, 1:])


def no_fault(_ran, _n):
    return None


def every_logit(by):
    def spoil(ran, _n):
        ran.logits += np.float32(by)

    return spoil


# What is spoiled, the check that has to see it, and words of its complaint (none: it must not complain).
PLANTED = (
    (no_fault, "reference", None),
    (a_logit(3e-4), "reference", "the distance of logit"),
    (a_logit(np.nan), "reference", "the distance of logit"),
    (one_bit_of_the_second_run, "reference", "different bits"),
    (a_decision, "reference", "1 decisions differ"),
    (a_row_less, "reference", "have shape"),
    (no_fault, "greedy", "continues"),
    (no_fault, "replayed", None),
    (every_logit(0.5), "replayed", "root mean square error"),
    (a_logit(np.inf), "replayed", "root mean square error"),
    (a_decision, "replayed", "1 decisions differ"),
    (no_fault, "free", None),
    (a_logit(np.inf), "free", "no numbers"),
    (no_fault, "forced", None),
    (a_logit_of_the_device, "forced", "from the host's"),
    (a_decision_of_the_device, "forced", "1 decisions differ"),
    (no_fault, "ragged", None),
    (a_logit_of_the_device, "ragged", "from the host's"),
    (a_decision_of_the_device, "ragged", "1 decisions differ"),
)


def check_named(name, plan, golden):
    """The check `name` on host code."""
    if name == "forced":
        return plan.pair(golden, "cpu", name, checks.forced, "f32", "cpu", 1)
    if name == "ragged":
        row = golden.tokens.shape[1]
        lengths = [row - 1] * golden.tokens.shape[0]
        return plan.pair(golden, "cpu", name, checks.ragged, "f32", "cpu", lengths)
    of = {"reference": checks.reference_f32, "greedy": checks.greedy_f32}
    of |= {"replayed": checks.reference_bf16, "free": checks.free_bf16}
    return plan.simple(golden, "cpu", name, of[name], "f32", "cpu")


def spoiled_results_are_found(folder, scratch):
    for spoil, name, words in PLANTED:
        plan = Plan(folder, Faulty(folder, scratch, spoil), gpu=False)
        for golden in (golden for golden in plan.golden if golden.name in FAULTY):
            [entry] = outcomes([check_named(name, plan, golden)])
            detail = entry.get("detail")
            right = detail is None if words is None else detail is not None and words in detail
            what = f"{golden.name} {name}, {spoil.__qualname__.split('.')[0]}"
            yield what, None if right else f"it said {detail!r}, wanted {words!r}"


def broken_runs_are_failures(folder, scratch):
    """A damaged artefact, one that is missing, a program that does not end or does not start, and a check that breaks."""
    damaged = scratch / "damaged"
    damaged.mkdir()
    artefact = bytearray((folder / "models/gumbel.f32.skp").read_bytes())
    artefact[len(artefact) // 2] ^= 1
    (damaged / "gumbel.f32.skp").write_bytes(artefact)
    sleeper = scratch / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(sleeper.stat().st_mode | stat.S_IXUSR)

    def outcome(models=None, program=None):
        runner = Runner(folder, scratch, timeout=1.0 if program else 60.0)
        runner.program = str(program or runner.program)
        plan = Plan(folder, runner, gpu=False)
        plan.models = models or plan.models
        [golden] = [golden for golden in plan.golden if golden.name == "gumbel"]
        [entry] = outcomes([check_named("reference", plan, golden)])
        return entry.get("detail")

    found = {
        "exit code": outcome(models=damaged),
        "was not built": outcome(models=scratch),
        "no end after": outcome(program=sleeper),
        "FileNotFoundError": outcome(program=scratch / "nothing"),
    }
    for words, detail in found.items():
        yield words, None if detail is not None and words in detail else f"it said {detail!r}"
    [entry] = outcomes([Job("made up", "cpu", "breaks", lambda _label: 1 / 0)])
    yield "a check that breaks", None if "ZeroDivisionError" in entry["detail"] else f"{entry}"


def forced_decisions_keep_constants(_folder, _scratch):
    gates = np.array([[[1, 1, 1]], [[0, 0, 0]], [[0, 1, 0]]], dtype=np.uint8)
    golden = SimpleNamespace(gates=gates, counted=np.ones((1, 3), bool))
    got = checks.forced_routing(golden, 0).tolist()
    yield "none", None if got == [[[1, 1, 1]], [[0, 0, 0]], [[0, 0, 0]]] else f"{got}"
    got = checks.forced_routing(golden, 1).tolist()
    yield "all", None if got == [[[1, 1, 1]], [[0, 0, 0]], [[1, 1, 1]]] else f"{got}"
    golden.counted[0, 2] = False
    golden.gates[:, 0, 2] = 0
    got = checks.forced_routing(golden, 1).tolist()
    yield "past the end", None if got == [[[1, 1, 0]], [[0, 0, 0]], [[1, 1, 0]]] else f"{got}"


def numbers_that_are_none_are_far_off(_folder, _scratch):
    for value in (np.nan, np.inf):
        try:
            checks.within("it", checks.rmse(np.array([value]), np.zeros(1)), 1e300)
            yield str(value), "is within bounds"
        except RunFailed:
            yield str(value), None


MODEL_CHECKS = [
    forced_decisions_keep_constants,
    numbers_that_are_none_are_far_off,
    host_code_agrees_with_the_reference,
    pairs_of_host_and_host_agree,
    spoiled_results_are_found,
    broken_runs_are_failures,
]

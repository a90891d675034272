"""The phase that runs all kernel cases of a target."""
from . import machine
from .kernel_cases import Suite
from .kernel_pool import Pool
from .kernel_worker import code_of


def modules_of(suite, code):
    """For each module its name and the cases of its kernels."""
    of_kernel = {}
    for idx, case in enumerate(suite.cases):
        of_kernel.setdefault(case.kernel, []).append(idx)
    modules = []
    for module in code["modules"]:
        indices = [idx for kernel in module["kernels"] for idx in of_kernel.get(kernel["kernel"], [])]
        modules.append((module["name"], sorted(indices)))
    return modules


def run_kernels(folder, target, form, results, deadline, n_workers, device="cuda", limits=None):
    """Runs every case as `form` ("cubin" or "ptx") of `target` and records each, and beside it how its bits compare."""
    folder = folder / "kernels"
    suite = Suite(folder)
    place, code = code_of(folder, target)
    wanted = Wanted(place)
    request = {"folder": str(folder), "target": target, "code": form, "separate": False, "device": device}
    request["machine"] = wanted.machine is not None
    modules = modules_of(suite, code)
    verdicts = Pool(request, deadline, n_workers, limits).run(modules)
    refused = {entry["kernel"]: entry for entry in code["refused"]}
    compiled = {idx for _, indices in modules for idx in indices}
    for idx, case in enumerate(suite.cases):
        entry = about(case, target, form)
        if idx in verdicts:
            verdict = verdicts[idx]
            entry.update(status="failed" if verdict.wrong else "passed", used=verdict.used)
            if verdict.wrong:
                entry["detail"] = verdict.wrong
        elif case.kernel in refused:
            why = refused[case.kernel]
            # A target that cannot do something is excused, a compiler that breaks is not.
            entry.update(status="skipped" if why["unsupported"] else "failed", detail=f"no code: {why['why']}")
        elif idx in compiled:
            entry.update(status="skipped", detail="out of time")
        else:
            entry.update(status="failed", detail="its kernel is in no module")
        results.add_case(entry)
        if case.exact:
            outcome = wanted.outcome(case, idx in compiled, verdicts.get(idx))
            results.add_machine({**about(case, target, form), "check": machine.CHECK, **outcome})


def about(case, target, form):
    return {"name": case.name, "target": target, "code": form}


class Wanted:
    """Results of the PTX machine, and what becomes of cases that should be compared with them."""

    def __init__(self, place):
        self.machine, self.missing = None, None
        try:
            self.machine = machine.load(place)
            if self.machine is None:
                self.missing = {"status": "skipped", "detail": "this build has no results of the PTX machine"}
        except (KeyError, OSError, TypeError, ValueError) as error:
            self.missing = {"status": "failed", "detail": f"the PTX machine's results cannot be read: {error}"}

    def outcome(self, case, has_code, verdict):
        if self.missing:
            return self.missing
        if not has_code:
            return {"status": "skipped", "detail": "no code"}
        if case.name not in self.machine.outputs:
            return {"status": "failed", "detail": "the PTX machine's results lack this case"}
        if verdict is None:
            return {"status": "skipped", "detail": "out of time"}
        if verdict.bits is None:
            return {"status": "skipped", "detail": f"it did not end: {verdict.wrong}"}
        return {"status": "passed"} if verdict.bits == machine.SAME else {"status": "failed", "detail": verdict.bits}

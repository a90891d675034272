"""The phase that runs all kernel cases of a target."""
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
    """Runs every case as `form` ("cubin" or "ptx") of `target` and records each."""
    folder = folder / "kernels"
    suite = Suite(folder)
    _, code = code_of(folder, target)
    request = {"folder": str(folder), "target": target, "code": form, "separate": False, "device": device}
    modules = modules_of(suite, code)
    verdicts = Pool(request, deadline, n_workers, limits).run(modules)
    refused = {entry["kernel"]: entry for entry in code["refused"]}
    compiled = {idx for _, indices in modules for idx in indices}
    for idx, case in enumerate(suite.cases):
        entry = {"name": case.name, "target": target, "code": form}
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

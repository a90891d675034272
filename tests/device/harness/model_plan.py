"""Which checks run on which model, and their running."""
import concurrent.futures
import threading
import time
import traceback
from dataclasses import dataclass

from . import model_checks as checks
from .models import RunFailed, golden_cases

# Models with artefacts for an older target alone, whose PTX the driver of a newer GPU compiles.
OLDER_MODELS, OLDER = ("gumbel", "wrap-mixed-routers"), "sm_80"


@dataclass
class Job:
    case: str
    form: str
    check: str
    run: object

    @property
    def label(self):
        return f"{self.case}.{self.form}.{self.check}"


class Plan:
    """Jobs over the golden cases of a folder. Without `gpu`, those that need none."""

    def __init__(self, folder, runner, gpu):
        self.golden, self.models, self.runner, self.gpu = golden_cases(folder / "golden"), folder / "models", runner, gpu

    def artefact(self, golden, form):
        path = self.models / f"{golden.model}.{form}.skp"
        if not path.exists():
            raise RunFailed(f"{path.name} was not built")
        return path

    def jobs(self):
        """Host first: what is compared with the host's results says little where those are wrong."""
        jobs = [job for golden in self.golden for job in self.host_jobs(golden)]
        if self.gpu:
            jobs += [job for golden in self.golden for job in self.cuda_jobs(golden)]
            older = [golden for golden in self.golden if golden.name in OLDER_MODELS]
            jobs += [job for golden in older for job in self.older_jobs(golden)]
        return jobs

    def host_jobs(self, golden):
        yield self.simple(golden, "cpu", "reference", checks.reference_f32, "f32", "cpu")
        greedy = checks.greedy_f32 if golden.generates else checks.greedy_refused
        yield self.simple(golden, "cpu", "greedy", greedy, "f32", "cpu")

    def cuda_jobs(self, golden):
        yield self.simple(golden, "cuda-f32", "reference", checks.reference_f32, "f32", "cuda")
        greedy = checks.greedy_f32 if golden.generates else checks.greedy_refused
        yield self.simple(golden, "cuda-f32", "greedy", greedy, "f32", "cuda")
        yield self.simple(golden, "cuda-bf16", "replayed", checks.reference_bf16, "bf16", "cuda")
        yield self.simple(golden, "cuda-bf16", "free", checks.free_bf16, "bf16", "cuda")
        greedy = checks.greedy_bf16 if golden.generates else checks.greedy_refused
        yield self.simple(golden, "cuda-bf16", "greedy", greedy, "bf16", "cuda")
        for dtype in ("f32", "bf16"):
            yield from self.pairs(golden, f"cuda-{dtype}", dtype, "cuda")

    def pairs(self, golden, form, dtype, device):
        """Checks of a device against the host."""
        if len(golden.gates) and golden.n_tokens >= checks.FORCED_FROM:
            for name, value in (("all", 1), ("none", 0)):
                yield self.pair(golden, form, f"forced-{name}", checks.forced, dtype, device, value)
        for lengths in checks.RAGGED:
            if checks.fits(golden, lengths):
                name = "ragged-" + "-".join(map(str, lengths))
                yield self.pair(golden, form, name, checks.ragged, dtype, device, lengths)

    def older_jobs(self, golden):
        form = f"cuda-f32-{OLDER}"
        yield self.simple(golden, form, "reference", checks.reference_f32, f"f32-{OLDER}", "cuda")

    def simple(self, golden, form, name, check, artefact, device):
        def run(label):
            return check(self.runner, label, self.artefact(golden, artefact), device, golden)

        return Job(golden.name, form, name, run)

    def pair(self, golden, form, name, check, dtype, device, what):
        def run(label):
            models = (self.artefact(golden, "f32"), self.artefact(golden, dtype))
            return check(self.runner, label, models, device, golden, what, dtype)

        return Job(golden.name, form, name, run)


def run_jobs(jobs, results, deadline, n_workers):
    """Runs jobs side by side and records each; one that fails or breaks stops no other."""
    lock = threading.Lock()

    def run(job):
        entry = {"name": job.case, "form": job.form, "check": job.check}
        if time.monotonic() >= deadline:
            entry.update(status="skipped", detail="out of time")
        else:
            try:
                entry.update(status="passed", **job.run(job.label))
            except RunFailed as failure:
                entry.update(status="failed", detail=str(failure))
            except Exception:
                entry.update(status="failed", detail=traceback.format_exc(limit=-2))
        with lock:
            results.add_model(entry)

    with concurrent.futures.ThreadPoolExecutor(n_workers) as executor:
        list(executor.map(run, jobs))

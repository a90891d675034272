"""Kernels and a model under compute-sanitizer: slow, so that only some of the kernel cases are run."""
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from .kernel_cases import Suite
from .kernel_worker import code_of
from .kernels import modules_of

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# What compute-sanitizer ends with if it found something; neither Python nor skipc-run uses it.
FOUND = 86
# Of each module, every so-manieth case.
STRIDE = 8
MODEL = "gumbel"


def run_sanitizer(folder, target, results, deadline):
    program = shutil.which("compute-sanitizer")
    if program is None:
        for tool in TOOLS:
            results.add_sanitizer({"name": "all", "tool": tool, "status": "skipped", "detail": "no compute-sanitizer"})
        return
    for tool in TOOLS:
        for name, command, request in (kernel_run(folder, target), model_run(folder)):
            entry = {"name": name, "tool": tool}
            left = deadline - time.monotonic()
            if left <= 0:
                entry.update(status="skipped", detail="out of time")
            else:
                under = [program, f"--tool={tool}", f"--error-exitcode={FOUND}", "--print-limit=5"]
                entry.update(run_one(under + command, request, left))
            results.add_sanitizer(entry)


def run_one(command, request, timeout):
    place = Path(__file__).resolve().parent.parent
    try:
        ran = subprocess.run(command, input=request, capture_output=True, text=True, timeout=timeout, cwd=place)
    except subprocess.TimeoutExpired:
        return {"status": "skipped", "detail": "out of time"}
    said = [line for line in ran.stdout.splitlines() if line.startswith("=========")]
    if ran.returncode == 0:
        return {"status": "passed"}
    why = "it found" if ran.returncode == FOUND else f"it ended with {ran.returncode}"
    return {"status": "failed", "detail": "\n".join([why, *said[:40], ran.stderr[:600]])}


def kernel_run(folder, target):
    suite = Suite(folder / "kernels")
    _, code = code_of(folder / "kernels", target)
    chosen = [[name, indices[::STRIDE]] for name, indices in modules_of(suite, code)]
    request = {"folder": str(folder / "kernels"), "target": target, "code": "cubin", "separate": True, "machine": False}
    request.update(device="cuda", modules=chosen)
    return "kernels", [sys.executable, "-m", "harness.kernel_worker"], json.dumps(request)


def model_run(folder):
    model, tokens = folder / f"models/{MODEL}.f32.skp", folder / "golden" / MODEL / "tokens.npy"
    command = [folder / "bin" / "skipc-run", model, "--device", "cuda", "--tokens", tokens]
    return f"model {MODEL}", [str(part) for part in command], ""

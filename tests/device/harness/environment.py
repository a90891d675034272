"""What the results were measured on."""
import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path

FIELDS = (
    "driver_version", "vbios_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem",
    "power.limit", "temperature.gpu", "mig.mode.current", "ecc.mode.current",
)  # fmt: skip


def probe():
    """Name and architecture of the first GPU as the driver gives them; why not, if there is none.

    In a process of its own: one that has a context keeps memory of the GPU.
    """
    command = [sys.executable, "-m", "harness.cuda_driver"]
    place = Path(__file__).resolve().parent.parent
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=place)
    except subprocess.TimeoutExpired:
        return {"missing": "the driver did not answer within 120 s"}
    if ran.returncode:
        return {"missing": ran.stderr.strip()[-200:]}
    return json.loads(ran.stdout)


def nvidia_smi():
    """Figures of the first GPU, each asked for by itself, since versions of the tool know different ones."""
    figures = {}
    for field in FIELDS:
        command = ["nvidia-smi", "--id=0", f"--query-gpu={field}", "--format=csv,noheader"]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return figures
        if ran.returncode == 0:
            figures[field] = ran.stdout.strip()
    return figures


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def describe(folder):
    """The head of the results file."""
    build = json.loads((Path(folder) / "build.json").read_text())
    gpu = {**probe(), **nvidia_smi()}
    return {
        "commit": build["commit"],
        "device": gpu.get("name", "none"),
        "driver": gpu.get("driver_version", "none"),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "gpu": gpu,
        "host": {"cpu": cpu_name(), "kernel": platform.release(), "python": sys.version.split()[0]},
        "build": build,
    }

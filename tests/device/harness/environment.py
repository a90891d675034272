"""What the results were measured on."""
import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path

FIELDS = (
    "name", "compute_cap", "driver_version", "vbios_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem",
    "clocks.max.mem", "power.limit", "temperature.gpu", "mig.mode.current", "ecc.mode.current",
)  # fmt: skip


def nvidia_smi():
    """Figures of the first GPU by name; empty where there is no such tool or no GPU."""
    command = ["nvidia-smi", "--id=0", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = ran.stdout.splitlines()[0].split(", ") if ran.returncode == 0 and ran.stdout.strip() else []
    return dict(zip(FIELDS, (value.strip() for value in values))) if len(values) == len(FIELDS) else {}


def cpu_name():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def describe(folder):
    """The head of the results file."""
    build = json.loads((Path(folder) / "build.json").read_text())
    gpu = nvidia_smi()
    return {
        "commit": build["commit"],
        "device": gpu.get("name", "none"),
        "driver": gpu.get("driver_version", "none"),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "gpu": gpu,
        "host": {"cpu": cpu_name(), "kernel": platform.release(), "python": sys.version.split()[0]},
        "build": build,
    }

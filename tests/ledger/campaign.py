"""Long checks, from where the ledgers left off: faults of the system, generated models of each kind, and inputs that nobody wrote
on purpose.

    python3 tests/ledger/campaign.py [--minutes 60] [--only models|fuzz|faults] [--threads 2]

Faults come first and take as long as they take, half an hour on two cores: every call that changes a file and every allocation
fails in turn, and commands are killed at moments of a new seed. Half of the time goes to each of the others. Models continue with
the seed after the last one that this version of the generator checked, kind by kind, those of which fewest were checked first; inputs
are drawn from a new seed. Whatever ends it, what was finished is in faults.json, generated.json and fuzz.json beside this file.
Exit code 1 for a difference, a panic, a hang, too much memory, or a file that is not whole.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

LEDGERS = Path(__file__).resolve().parent
ROOT = LEDGERS.parent.parent

# Minutes after which the run of a kind is entered.
TURN = 5


def kinds():
    """The first seed of each kind of generated models, as the generator has it."""
    found = {"plain": 0}
    for path in sorted((ROOT / "tests" / "generated").glob("*.rs")):
        first = re.search(r"const FIRST_SEED: u64 = 1 << (\d+);", path.read_text())
        if first:
            found[path.stem] = 1 << int(first[1])
    return found


def checked(kind, first, ends):
    """How many models of a kind were checked, and the seed after the last one."""
    text = (ROOT / "tests" / "generated" / "subject.rs").read_text()
    generator = int(re.search(r"GENERATOR: u32 = (\d+)", text)[1])
    path = LEDGERS / "generated.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    end = min([other for other in ends if other > first], default=1 << 63)
    own = [run for run in runs if run["generator"] == generator and first <= run["from"] < end]
    return sum(run["models"] for run in own), max((run["to"] for run in own), default=first)


def models(until, threads):
    command = ["cargo", "build", "--locked", "--release", "--features", "cuda", "--example", "generated-models"]
    subprocess.run(command, cwd=ROOT, check=True)
    binary, first = ROOT / "target" / "release" / "examples" / "generated-models", kinds()
    while time.monotonic() < until:
        counts = {kind: checked(kind, seed, first.values()) for kind, seed in first.items()}
        kind = min(counts, key=lambda kind: counts[kind][0])
        minutes = max(1, min(TURN, int((until - time.monotonic()) / 60)))
        print(f"{kind}: {counts[kind][0]} models so far; {minutes} more minutes of them", flush=True)
        run = [binary, "--from", counts[kind][1], "--count", 1 << 40, "--minutes", minutes, "--threads", threads]
        run += ["--code-every", 64, "--ledger", LEDGERS / "generated.json"]
        if subprocess.run(list(map(str, run)), cwd=ROOT).returncode:
            return False
    return True


def fuzz(seconds, threads):
    path = LEDGERS / "fuzz.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    seed = 1 + max((seed for entry in known.values() for seed in entry["seeds"]), default=0)
    command = ["cargo", "test", "--locked", "--release", "--features", "cuda", "--test", "fuzz"]
    subprocess.run([*command, "--no-run"], cwd=ROOT, check=True)
    listed = subprocess.run([*command, "--", "--list"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    each = seconds * threads / max(1, listed.count(": test"))
    print(f"inputs: {each:.0f} s for each target, {threads} at a time, from seed {seed}", flush=True)
    more = {"FUZZ_SECONDS": f"{each:.0f}", "FUZZ_SEED": str(seed), "FUZZ_LEDGER": str(path)}
    run = [*command, "--", "--nocapture", "--test-threads", str(threads)]
    return subprocess.run(run, cwd=ROOT, env=os.environ | more).returncode == 0


def faults(threads):
    path = LEDGERS / "faults.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    seed = 1 + max((entry["runs"] for entry in known.values()), default=0)
    more = {"FAULTS": "all", "FAULTS_SEED": str(seed), "FAULTS_LEDGER": str(path)}
    command = ["cargo", "test", "--locked", "--release", "--features", "cuda", "--test", "faults"]
    run = [*command, "--", "--nocapture", "--test-threads", str(threads)]
    return subprocess.run(run, cwd=ROOT, env=os.environ | more).returncode == 0


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--minutes", type=float, default=60)
    a.add_argument("--only", choices=["models", "fuzz", "faults"])
    a.add_argument("--threads", type=int, default=os.cpu_count())
    o = a.parse_args()
    seconds = 60 * o.minutes * (1 if o.only else 0.5)
    fine = True
    if o.only in (None, "faults"):
        fine = faults(o.threads)
    if fine and o.only in (None, "fuzz"):
        fine = fuzz(seconds, o.threads)
    if fine and o.only in (None, "models"):
        fine = models(time.monotonic() + seconds, o.threads)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()

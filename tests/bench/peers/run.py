"""skipc beside what a user would run instead, on the CPU: same weights, same inputs, in turns, outputs compared.

    make peers                                  all of it
    python run.py --workloads skip-ffn --threads 2 --rounds 5 --peers skipc,onnxruntime

In each round every peer runs once at every density; which is first changes from round to round. A step that is short runs
once before it is timed, so that a peer finds its threads awake and its caches as they are when it runs alone. Times are
of whole steps, from tokens to logits, routers included. A ratio is the median of the ratios of all rounds. Logits of all
peers are compared with those of the masked form first; a difference ends the run. Rounds end when their time is over,
which on a busy machine may be before all are done; the results say how many there were.

Writes MODEL-THREADS.json, .svg and .md for each workload and number of threads, and summary.md.
"""

import argparse
import datetime
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What skipc is asked for. The first is what it does by itself: f32 by LLVM.
OURS = {"skipc": [], "skipc-cranelift": ["--cpu-backend", "cranelift"], "skipc-bf16": ["--dtype", "cpu=bf16"]}
PEERS = [*OURS, "torch-masked", "torch-gathered", "torch-compiled-masked", "torch-compiled-gathered", "onnxruntime"]
NEEDS = {"torch": "torch", "onnxruntime": "onnxruntime"}

# Largest difference of two peers' logits, relative to the largest logit: they sum in different orders.
TOLERANCE = 2e-4
# The same in bf16, whose numbers have eight bits.
BF16_TOLERANCE = 3e-2
# Sets of tokens that take turns at each density.
SETS = 3
# Milliseconds up to which a step runs once before it is timed.
SHORT = 100
# Threads of a peer wait at full speed for more work for a while after a step. The next one begins when this process has
# used less than a tenth of a processor for so many seconds.
REST = 0.02
# By name: tokens, and densities.
WORKLOADS = {
    "skip-ffn": (2048, [0.05, 0.125, 0.25, 0.5, 1]),
    "skip-block": (2048, [0.125, 0.25, 0.5, 1]),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: text.split(",")
    parser.add_argument("--workloads", type=names, default=list(WORKLOADS), help="by default all")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[2, 1])
    parser.add_argument("--density", type=lambda text: [float(n) for n in text.split(",")], help="other densities")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=120, help="for the rounds of a workload and number of threads")
    parser.add_argument("--peers", type=names, help="only these; by default all, each of which has to be there")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "peers")
    parser.add_argument("--no-compile-times", action="store_true", help="leave out how long skipc compiles")
    found = parser.parse_args()
    unknown = (set(found.workloads) - set(WORKLOADS)) | (set(found.peers or []) - set(PEERS))
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join([*WORKLOADS, *PEERS])}")
    for peer in found.peers or PEERS:
        module = NEEDS.get(peer.split("-")[0])
        if module and not importlib.util.find_spec(module):
            parser.error(
                f"{peer} cannot be measured: this Python has no {module}; run tests/bench/peers/setup.sh and use the "
                "Python that it makes, or name the peers to measure with --peers"
            )
    return found


def machine():
    name = next((line.split(":")[1] for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return {
        "processor": " ".join(name.split()),
        "processors": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "python": platform.python_version(),
    }


def commit():
    def git(*args):
        return subprocess.run(["git", "-C", HERE, *args], capture_output=True, text=True).stdout.strip()

    changed = "-changed" if git("status", "--porcelain", "--untracked-files=no") else ""
    return git("rev-parse", "--short=12", "HEAD") + changed


def peers_of(workload, threads, names, ours):
    """Peers by name, each made for this workload and number of threads."""
    made = {}
    for name in names:
        if name in OURS:
            made[name] = ours(name)
        elif name == "onnxruntime":
            if any(block.heads for block in workload.blocks):
                continue
            import peer_onnx

            made[name] = peer_onnx.Onnx(workload, threads)
        else:
            import peer_torch

            made[name] = peer_torch.Torch(workload, threads, "gathered" in name, "compiled" in name)
    return made


def timed(peer, batch):
    """Milliseconds of one step."""
    if hasattr(peer, "time"):
        return peer.time(batch)
    started = time.perf_counter()
    peer.run(batch)
    return (time.perf_counter() - started) * 1e3


def rest():
    """Waits until no thread of this process is at work."""
    used = REST
    while used > REST / 10:
        before = time.process_time()
        time.sleep(REST)
        used = time.process_time() - before


class Point:
    """A density: inputs of every peer, and the times it took them."""

    def __init__(self, workload, density, peers, reference):
        self.density, self.rows = density, workload.rows(density)
        tokens = [workload.input(density, seed) for seed in range(SETS)]
        self.batches = {name: [peer.prepare(ids) for ids in tokens] for name, peer in peers.items()}
        self.times = {name: [] for name in peers}
        self.differences = self.compared(peers, tokens, reference)
        self.check_decisions(workload, peers)

    def compared(self, peers, tokens, reference):
        """The largest difference of each peer from the masked form, relative to its largest logit."""
        worst = dict.fromkeys(peers, 0.0)
        for idx, ids in enumerate(tokens):
            wanted = reference.logits(reference.prepare(ids))
            for name, peer in peers.items():
                found = peer.logits(self.batches[name][idx])
                difference = float(abs(found - wanted).max() / abs(wanted).max())
                tolerance = BF16_TOLERANCE if name.endswith("bf16") else TOLERANCE
                if not difference <= tolerance:
                    sys.exit(
                        f"{name} computes something else at density {self.density}: logits differ by {difference:.2e} of "
                        f"the largest, more than {tolerance:.0e}; no times are reported"
                    )
                worst[name] = max(worst[name], difference)
        return worst

    def check_decisions(self, workload, peers):
        for name in OURS.keys() & peers.keys():
            executed = peers[name].executed(self.batches[name][0])
            if executed != [self.rows] * len(workload.blocks):
                sys.exit(f"at density {self.density} blocks executed {executed}, not {self.rows} tokens each")

    def round(self, peers, number):
        names = list(peers)
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            peer, batch = peers[name], self.batches[name][number % SETS]
            rest()
            if not self.times[name] or self.times[name][-1] < SHORT:
                timed(peer, batch)
            self.times[name].append(timed(peer, batch))


def measure(workload, threads, densities, asked, peers):
    """The densities with their times."""
    reference = reference_of(workload, threads, peers)
    points = []
    for density in densities:
        say(f"{workload.name}, {threads} threads: compares outputs at density {density:g}")
        points.append(Point(workload, density, peers, reference))
    end = time.monotonic() + asked.seconds
    for number in range(asked.rounds):
        if time.monotonic() > end:
            break
        for point in points:
            point.round(peers, number)
        say(f"{workload.name}, {threads} threads: round {number + 1} of {asked.rounds}")
    return points


def reference_of(workload, threads, peers):
    """The masked form; without PyTorch the first of the peers."""
    if not importlib.util.find_spec("torch"):
        return next(iter(peers.values()))
    import peer_torch

    return peer_torch.Torch(workload, threads, gathered=False, compiled=False)


def say(what):
    print(f"peers: {what}", file=sys.stderr, flush=True)


def main():
    asked = arguments()
    import ours
    import report
    from workload import Workload

    asked.out.mkdir(parents=True, exist_ok=True)
    worker = ours.Worker()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in asked.workloads:
            tokens, densities = WORKLOADS[name]
            densities = sorted(set(asked.density or densities))
            workload = Workload(name, HERE / f"{name}.toml", tokens)
            weights = folder / f"{name}.safetensors"
            workload.save(weights)
            for threads in asked.threads if name == "skip-ffn" else asked.threads[:1]:

                def made(variant):
                    artefact = folder / f"{name}-{variant}.skp"
                    if not artefact.exists():
                        ours.compile_to(workload.spec, weights, artefact, tokens, OURS[variant])
                    return ours.Skipc(workload, threads, worker, artefact, folder)

                about = machine()
                peers = peers_of(workload, threads, asked.peers or PEERS, made)
                points = measure(workload, threads, densities, asked, peers)
                result = report.result(workload, threads, points)
                result["peak_gflops"] = worker.ask("peak", threads=threads)
                result["steps"] = {
                    variant: {
                        f"{point.density:g}": peers[variant].steps(point.batches[variant][0], 5) for point in points
                    }
                    for variant in OURS
                    if variant in peers
                }
                devices = {peer.device for peer in peers.values() if hasattr(peer, "device")}
                results.append(
                    result | {"machine": about, "versions": versions(), "device": ", ".join(sorted(devices))}
                )
        times = {}
        if not asked.no_compile_times:
            say("times of compiling")
            spec = HERE.parents[2] / "models" / "skip-48l-d12.toml"
            times = {
                f"{path.stem} by {backend}, {layers} blocks": ours.compile_seconds(path, layers, folder, backend)
                for path in (spec, HERE / "skip-block.toml")
                for backend in ("cranelift", "llvm")
                for layers in (12, 48)
            }
    report.write(asked.out, results, times)


def versions():
    found = {}
    for name in ("peer_torch", "peer_onnx"):
        if name in sys.modules:
            found |= sys.modules[name].versions()
    return found


if __name__ == "__main__":
    main()

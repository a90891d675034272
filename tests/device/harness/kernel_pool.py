"""Runs kernel cases in worker processes and outlives them: one fault costs one case.

A worker that ends or falls silent while a case runs has failed that case; the cases after it go to a new worker.
"""
import json
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from .kernel_cases import Verdict

HERE = Path(__file__).resolve().parent


@dataclass
class Limits:
    """Seconds of silence after which a worker is ended, by what it said last."""

    start: float = 90.0
    loading: float = 180.0
    running: float = 20.0


class Pool:
    """`deadline` is a time of `time.monotonic`; what was not run by then has no verdict."""

    def __init__(self, request, deadline, n_workers=1, limits=None):
        self.request = request
        self.deadline = deadline
        self.n_workers = n_workers
        self.limits = limits or Limits()
        self.verdicts = {}

    def run(self, modules):
        """`modules`: for each its name and indices of cases. Gives the verdicts by case."""
        todo = queue.SimpleQueue()
        for module in modules:
            todo.put(module)

        def work():
            while time.monotonic() < self.deadline:
                try:
                    name, indices = todo.get_nowait()
                except queue.Empty:
                    return
                self._run_module(name, indices)

        threads = [threading.Thread(target=work) for _ in range(self.n_workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.verdicts

    def _run_module(self, name, indices):
        rest = list(indices)
        while rest:
            culprit, why = self._run_worker(name, rest)
            if time.monotonic() >= self.deadline:
                return
            left = [idx for idx in rest if idx not in self.verdicts]
            if culprit is not None:
                self.verdicts[culprit] = Verdict(None, why or "the process ended in the middle of it")
                left.remove(culprit)
            elif len(left) == len(rest):
                # It ended before any case: with each of them alone it would do so again.
                for idx in left:
                    self.verdicts[idx] = Verdict(None, f"no case of module {name} was run: {why}")
                return
            rest = left

    def _run_worker(self, name, indices):
        """Runs until the worker ends; gives the case that it was in, and why it ended if that was no choice of its own."""
        request = {**self.request, "modules": [[name, indices]]}
        command = [sys.executable, "-m", "harness.kernel_worker"]
        worker = subprocess.Popen(
            command, cwd=HERE.parent, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        lines, errors = queue.SimpleQueue(), []
        readers = [
            threading.Thread(target=_pump, args=(worker.stdout, lines.put), daemon=True),
            threading.Thread(target=_pump, args=(worker.stderr, errors.append), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            worker.stdin.write(json.dumps(request))
            worker.stdin.close()
        except BrokenPipeError:
            pass
        culprit, why = self._follow(lines)
        if why is not None:
            worker.kill()
        code = worker.wait()
        readers[1].join(timeout=5)
        if why is None and code != 0:
            said = "".join(line for line in errors if line).strip().splitlines()
            why = f"the process ended with {code}" + (f": {said[-1]}" if said else "")
        return culprit, why

    def _follow(self, lines):
        """Reads what a worker says until its output ends or it is silent for too long."""
        culprit, patience = None, self.limits.start
        while True:
            left = self.deadline - time.monotonic()
            try:
                line = lines.get(timeout=max(0.01, min(patience, left)))
            except queue.Empty:
                if left < patience:
                    return culprit, "the time for all cases was over"
                return culprit, f"nothing happened for {patience:.0f} s"
            if line is None:
                return culprit, None
            try:
                said = json.loads(line)
            except ValueError:
                continue  # Tools around the worker print too.
            if "loading" in said:
                patience = self.limits.loading
            elif "running" in said:
                culprit, patience = said["running"], self.limits.running
            elif "done" in said:
                culprit = None
                self.verdicts[said["done"]] = Verdict(said["used"], said["wrong"], said["bits"])


def _pump(stream, put):
    """Hands over each line, and None at the end."""
    for line in stream:
        put(line)
    put(None)

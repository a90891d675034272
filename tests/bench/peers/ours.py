"""skipc: compiles a workload, and runs it in a process of its own that keeps the artefact loaded."""

import json
import re
import subprocess

import numpy as np

ROOT = __file__.rsplit("/tests/", 1)[0]
SKIPC = f"{ROOT}/target/release/skipc"
WORKER = f"{ROOT}/target/release/examples/bench-worker"


def skipc(*args):
    done = subprocess.run([SKIPC, *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"skipc {' '.join(map(str, args))}\n{done.stderr}")
    return done.stdout


def compile_to(spec, weights, artefact, tokens=None, options=()):
    """Compiles for the CPU; seconds of each stage."""
    limit = ["--max-tokens", tokens] if tokens else []
    said = skipc("compile", spec, "--weights", weights, "-o", artefact, "--target", "cpu", "--json", *limit, *options)
    return {stage["stage"]: stage["seconds"] for stage in json.loads(said)["stages"]}


def compile_seconds(spec, layers, folder, backend, tries=3):
    """The best of some compiles of a spec of one stack, repeated so many times, by a backend: until there is code, and until
    weights are in the artefact as well."""
    text, found = re.subn(r"repeat = \d+", f"repeat = {layers}", open(spec).read())
    assert found == 1, f"{spec} has no stack that repeats"
    path, weights = folder / "layers.toml", folder / "layers.safetensors"
    path.write_text(text)
    skipc("init", path, "-o", weights)
    options = ["--cpu-backend", backend]
    stages = [compile_to(path, weights, folder / "layers.skp", options=options) for _ in range(tries)]
    packing = "known answers, packing"
    return {
        "code": min(sum(time for stage, time in times.items() if stage != packing) for times in stages),
        "packing": min(times[packing] for times in stages),
    }


class Worker:
    """The process; one request and one answer at a time."""

    def __init__(self):
        self.process = subprocess.Popen([WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what, **parameters):
        self.process.stdin.write(json.dumps({what: parameters}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "it ended"}')
        if "error" in answer:
            raise RuntimeError(f"the bench worker cannot {what}: {answer['error']}")
        return answer


class Skipc:
    """An artefact in a session of the worker, as the harness calls it."""

    def __init__(self, workload, threads, worker, artefact, folder):
        self.worker, self.lengths = worker, [workload.length] * (workload.tokens // workload.length)
        self.output, self.vocab = folder / "logits.f32", workload.vocab
        loaded = worker.ask("load", artefact=str(artefact), threads=threads)
        self.session, self.device = loaded["session"], loaded["device"]

    def prepare(self, tokens):
        return self.worker.ask("batch", tokens=tokens.tolist(), lengths=self.lengths)["batch"]

    def time(self, batch):
        """Milliseconds, taken in the worker, so that talking to it is not in them."""
        return self.worker.ask("run", session=self.session, batch=batch)["ms"]

    def executed(self, batch):
        return self.worker.ask("run", session=self.session, batch=batch)["executed"]

    def logits(self, batch):
        self.worker.ask("run", session=self.session, batch=batch, logits=str(self.output))
        return np.fromfile(self.output, np.float32).reshape(-1, self.vocab)

    def steps(self, batch, rounds):
        return self.worker.ask("steps", session=self.session, batch=batch, rounds=rounds)["steps"]


class Decoder:
    """An artefact that is continued from caches, as the harness of decoding calls it."""

    def __init__(self, worker, artefact, threads, folder):
        self.worker, self.output = worker, folder / "logits.f32"
        loaded = worker.ask("load", artefact=str(artefact), threads=threads)
        self.session, self.device = loaded["session"], loaded["device"]

    def decode(self, prompt, count):
        """Tokens, and milliseconds of the prompt and of each step behind it; taken in the worker."""
        found = self.worker.ask("decode", session=self.session, prompt=prompt, count=count)
        self.executed = found["executed"]
        return found["tokens"], found["prompt_ms"], found["ms"]

    def logits(self, prompt):
        self.worker.ask("decode", session=self.session, prompt=prompt, count=0, logits=str(self.output))
        return np.fromfile(self.output, np.float32)

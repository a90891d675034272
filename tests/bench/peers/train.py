"""A step of training in skipc beside PyTorch's, on the CPU: the same sizes, the same numbers of executed tokens, in turns.

    python train.py --skipc target/release/skipc --peers train_peers.py
    python train.py --skipc target/release/skipc --layers 4 --density 0.125,1 --interpreter

`train_peers.py` times whole steps in PyTorch (forward, backward, clipping, AdamW), eager and compiled, masked and gathered, and
prints a line of JSON for each form and density. Ours is `skipc train` of a spec of those sizes, whose decisions are replayed from
arrays with exactly round(density * seq) executed tokens in each row. Each density is measured `--rounds` times, one after
the other, peers and ours in turns; a figure is the median of all steps but the first of each run.

Writes train.json beside the other results, and prints a table.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy

HERE = Path(__file__).resolve().parent

SPEC = """[model]
name = "train-bench"
vocab_size = {vocab}
d_model = {d}
max_positions = {seq}
norm = "rmsnorm"
norm_eps = 1e-5
positions = "none"
tie_embeddings = true

[block.sparse]
skip = {{ router = "gumbel", density = {density}, kv = "all" }}
layers = [
  {{ kind = "attention", heads = {heads}, kv_heads = {heads}, head_dim = {head_dim} }},
  {{ kind = "ffn", d_ff = {ff}, activation = "gelu" }},
]

[[stack]]
blocks = ["sparse"]
repeat = {layers}
"""

CONFIG = """[train]
steps = {steps}
batch = {batch}
seq = {seq}
ste = "{ste}"

[optimizer]
kind = "adamw"
lr = 1e-4

[data]
tokens = "tokens.npy"
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [float(word) for word in text.split(",")]
    parser.add_argument("--skipc", type=Path, required=True, help="a release build")
    parser.add_argument("--peers", type=Path, help="train_peers.py; without it, ours alone")
    parser.add_argument("--density", type=numbers, default=[0.125, 0.25, 0.5, 1.0])
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--d", type=int, default=512)
    parser.add_argument("--ff", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--interpreter", action="store_true", help="also one step on the reference interpreter")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "peers" / "train.json")
    return parser.parse_args()


def project(folder, options, density, ste):
    """A spec, a configuration, tokens and decisions."""
    sizes = vars(options) | {"density": density, "ste": ste, "head_dim": options.d // options.heads}
    (folder / "spec.toml").write_text(SPEC.format(**sizes))
    (folder / "train.toml").write_text(CONFIG.format(**sizes))
    draw = numpy.random.default_rng(1)
    rows = draw.integers(0, options.vocab, (options.batch, options.seq + 1), dtype=numpy.int32)
    numpy.save(folder / "tokens.npy", rows)
    shape = (options.steps, options.layers, options.batch, options.seq)
    order = draw.random(shape).argsort(axis=-1)
    gates = (order < round(density * options.seq)).astype(numpy.uint8)
    for name in ("wanted", "gates"):
        numpy.save(folder / f"{name}.npy", gates)


def ours(options, density, ste, target):
    """Milliseconds of each step but the first."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        project(folder, options, density, ste)
        command = [options.skipc.resolve(), "train", "spec.toml", "--config", "train.toml", "-o", "out", "--routing", "."]
        command += ["--threads", str(options.threads), *target]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        lines = [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]
    tokens = options.batch * options.seq
    return [1000 * tokens / line["tokens_per_second"] for line in lines if "tokens_per_second" in line][1:]


def theirs(options, density):
    """A line of JSON for each form."""
    sizes = ["layers", "d", "ff", "heads", "batch", "seq", "vocab", "threads"]
    command = [sys.executable, options.peers, "--density", str(density), "--runs", str(options.steps)]
    for size in sizes:
        command += [f"--{size}", str(getattr(options, size))]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def main():
    options = arguments()
    forms = {
        "skipc-llvm-sparse": ("sparse_ste", ["--cpu-backend", "llvm"]),
        "skipc-llvm-dense": ("dense_ste", ["--cpu-backend", "llvm"]),
        "skipc-cranelift-sparse": ("sparse_ste", ["--cpu-backend", "cranelift"]),
    }
    if options.interpreter:
        forms["skipc-interpreter-sparse"] = ("sparse_ste", ["--target", "interpreter"])
    found = {}
    for density in options.density:
        times = {}
        for _ in range(options.rounds):
            for name, (ste, target) in forms.items():
                times.setdefault(name, []).extend(ours(options, density, ste, target))
            for line in theirs(options, density) if options.peers else []:
                if "error" not in line:
                    times.setdefault(line["peer"], []).append(line["ms_median"])
        found[str(density)] = {name: round(statistics.median(of), 1) for name, of in times.items()}
        print(f"density {density}: " + ", ".join(f"{name} {ms} ms" for name, ms in found[str(density)].items()), flush=True)
    result = {"machine": platform.processor() or platform.machine(), "threads": options.threads, "layers": options.layers, "d": options.d}
    result |= {"ff": options.ff, "tokens": options.batch * options.seq, "ms": found}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

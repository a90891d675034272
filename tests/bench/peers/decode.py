"""skipc beside llama.cpp, transformers and PyTorch, decoding one sequence on the CPU: same weights, in turns, tokens compared.

    make peers-decode                           all of it, with `skipc bench --decode` of the same spec before
    python decode.py --rounds 2 --peers skipc-bf16,llama.cpp-bf16

The model is `decode.toml`, a Llama whose blocks tokens skip, and its dense sibling, the Llama itself, with weights that
`decode_model.py` draws. Dense peers run the Llama; those that skip run the model at each density, which the class of the
first token decides. In each round every peer continues every prompt once by the likeliest tokens, from its own keys and values;
which is first changes from round to round. A figure is the median step of a round; a ratio is the median of the ratios of
all rounds.

A peer that gives other tokens than the others of its model, or logits after the prompt that are further than its precision
explains from those of PyTorch in f32, ends the run without times.

Writes decode.json and decode.md.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

import ours
import peer_decode
from decode_model import DENSITIES, DecodeModel
from run import HERE, machine, rest, say

# Peers by name: what they run, and the largest difference of their logits, relative to the largest.
BF16, Q8 = 3e-2, 5e-2
DENSE = {
    "skipc-bf16": BF16,
    "skipc-f32": 1e-3,
    "llama.cpp-f16": BF16,
    "llama.cpp-bf16": BF16,
    "llama.cpp-q8_0": Q8,
    "transformers-bf16": BF16,
}
SKIPPING = {"skipc-bf16": BF16, "torch-masked-bf16": BF16, "torch-branching-bf16": BF16}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = lambda text: text.split(",")
    known = list(dict.fromkeys([*DENSE, *SKIPPING]))
    parser.add_argument("--peers", type=names, default=known, help="only these; by default all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=150, help="for the rounds")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=12, help="tokens that follow it")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "peers")
    found = parser.parse_args()
    if unknown := set(found.peers) - set(known):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return found


def dense_peer(name, model, folder, threads, worker):
    kind, dtype = name.rsplit("-", 1)
    if kind == "skipc":
        return skipc("dense", dtype, folder, threads, worker)
    if kind == "llama.cpp":
        path = folder / f"dense-{dtype}.gguf"
        model.save_gguf(path, dtype.upper())
        return peer_decode.LlamaCpp(path, threads)
    return peer_decode.Transformers(folder / "dense", threads, torch.bfloat16)


def skipping_peer(name, model, folder, threads, worker):
    if name.startswith("skipc"):
        return skipc("skip", name.rsplit("-", 1)[1], folder, threads, worker)
    return peer_decode.SkippingTorch(model, threads, torch.bfloat16, masked="masked" in name)


def skipc(model, dtype, folder, threads, worker):
    artefact = folder / f"{model}-{dtype}.skp"
    ours.compile_to(folder / f"{model}.toml", folder / f"{model}.safetensors", artefact, 512, ["--dtype", f"cpu={dtype}"])
    return ours.Decoder(worker, artefact, threads, folder)


class Subject:
    """A peer on a prompt, with the median steps of its rounds."""

    def __init__(self, name, density, peer, prompt, tolerance):
        self.name, self.density, self.peer, self.prompt, self.tolerance = name, density, peer, prompt, tolerance
        self.steps, self.prompts = [], []

    def check(self, wanted_logits, wanted_tokens):
        """Its logits against those of the reference, and its tokens."""
        found = self.peer.logits(self.prompt)
        self.difference = float(abs(found - wanted_logits).max() / abs(wanted_logits).max())
        if not self.difference <= self.tolerance:
            self.fail(f"logits differ by {self.difference:.2e} of the largest, more than {self.tolerance:.0e}")
        tokens, _, _ = self.peer.decode(self.prompt, len(wanted_tokens) - 1)
        if tokens != wanted_tokens:
            self.fail(f"tokens are {tokens}, not {wanted_tokens}")

    def fail(self, what):
        sys.exit(f"{self.name} computes something else {self.where()}: {what}; no times are reported")

    def where(self):
        return "of the dense model" if self.density is None else f"at density {self.density:g}"

    def run(self, count):
        rest()
        _, prompt, steps = self.peer.decode(self.prompt, count)
        self.prompts.append(prompt)
        self.steps.append(statistics.median(steps))


def subjects(model, asked, folder, worker):
    """Every peer on every prompt, checked."""
    reference = peer_decode.Transformers(folder / "dense", asked.threads, torch.float32)
    found = []
    for name in (name for name in DENSE if name in asked.peers):
        say(f"prepares {name}, dense")
        peer = dense_peer(name, model, folder, asked.threads, worker)
        prompt = model.prompt(1.0, asked.prompt)
        subject = Subject(name, None, peer, prompt, DENSE[name])
        subject.check(reference.logits(prompt), model.prompt(1.0, asked.prompt + asked.tokens + 1)[asked.prompt :])
        found.append(subject)
    del reference
    reference = peer_decode.SkippingTorch(model, asked.threads, torch.float32, masked=True)
    for name in (name for name in SKIPPING if name in asked.peers):
        say(f"prepares {name}, skipping")
        peer = skipping_peer(name, model, folder, asked.threads, worker)
        for density in DENSITIES:
            prompt = model.prompt(density, asked.prompt)
            subject = Subject(name, density, peer, prompt, SKIPPING[name])
            wanted = model.prompt(density, asked.prompt + asked.tokens + 1)[asked.prompt :]
            subject.check(reference.logits(prompt), wanted)
            executes = [round(density * model.blocks)] * asked.tokens
            if name.startswith("skipc") and peer.executed != executes:
                subject.fail(f"{peer.executed} blocks executed, not {executes[0]} for each token")
            found.append(subject)
    return found


def measure(found, asked):
    end = time.monotonic() + asked.seconds
    for number in range(asked.rounds):
        if number and time.monotonic() > end:
            break
        for place in range(len(found)):
            found[(place + number) % len(found)].run(asked.tokens)
        say(f"round {number + 1} of {asked.rounds}")


def result(model, found, asked, about):
    base = {subject.density: subject.steps for subject in found if subject.name == "skipc-bf16"}

    def ratio(times, others):
        return statistics.median(time / other for time, other in zip(times, others)) if others else None

    rows = [
        {
            "peer": subject.name,
            "density": subject.density,
            "ms_a_token": statistics.median(subject.steps),
            "prompt_ms": statistics.median(subject.prompts),
            "times_skipc_bf16": ratio(subject.steps, base.get(subject.density)),
            "times_skipc_bf16_dense": ratio(subject.steps, base.get(None)),
            "difference": subject.difference,
            "rounds_ms": [round(time, 4) for time in subject.steps],
        }
        for subject in found
    ]
    parameters = sum(weight.numel() for weight in model.without_routers().values())
    return {
        "model": model.spec.name,
        "parameters": parameters,
        "threads": asked.threads,
        "prompt": asked.prompt,
        "tokens": asked.tokens,
        "rounds": len(found[0].steps) if found else 0,
        "machine": about,
        "versions": peer_decode.versions(),
        "rows": rows,
    }


def table(result):
    about = result["machine"]
    lines = [
        f"{result['model']}: {result['parameters'] / 1e6:.0f} million parameters, {result['tokens']} tokens behind "
        f"{result['prompt']}, {result['threads']} threads of {about['processor']}, load {about['load'][0]}, commit "
        f"{about['commit']}, medians of {result['rounds']} rounds",
        "",
        "| model | peer | ms a token | times skipc in bf16 | times skipc in bf16, dense | prompt, ms |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    times = lambda ratio: "" if ratio is None else f"{ratio:.2f}"
    for row in result["rows"]:
        model = "dense" if row["density"] is None else f"density {row['density']:g}"
        ratios = f"{times(row['times_skipc_bf16'])} | {times(row['times_skipc_bf16_dense'])}"
        lines.append(f"| {model} | {row['peer']} | {row['ms_a_token']:.2f} | {ratios} | {row['prompt_ms']:.0f} |")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join([*lines, "", versions, ""])


def main():
    asked = arguments()
    about = machine()
    worker = ours.Worker()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        say("draws weights")
        model = DecodeModel(HERE / "decode.toml")
        model.save(folder)
        model.save_hugging_face(folder / "dense")
        found = subjects(model, asked, folder, worker)
        measure(found, asked)
    written = result(model, found, asked, about)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "decode.json").write_text(json.dumps(written, indent=1) + "\n")
    (asked.out / "decode.md").write_text(table(written))
    print(table(written))


if __name__ == "__main__":
    main()

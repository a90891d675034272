"""SmolLM2-135M from its directory: skipc beside transformers and llama.cpp on the CPU, tokens compared, then times in turns.

    make smollm2
    python smollm2_run.py FOLDER [--prompts 50] [--tokens 64] [--rounds 7]

FOLDER is what `smollm2.py` makes. Every prompt is a chat, tokens as transformers makes them; skipc in f32 has to continue each
by the same tokens as transformers in f32. A token that transformers itself chooses by less than MARGIN of a logit may differ,
which is said, and the rest of that continuation is not compared. Then one text is continued by `skipc generate --chat`, which
has only the artefact, and compared as text. Times: the median step behind a prompt, and the prompt, each round in turns.

Writes smollm2.json and smollm2.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers

import ours
import peer_decode
from run import HERE, machine, rest, say
from smollm2 import save_gguf

# Logits are sums of hundreds of numbers: f32 rounds them to about this.
MARGIN = 1e-3
THINGS = ["the sea", "a bicycle", "prime numbers", "bread", "the moon", "a library", "photosynthesis", "chess", "winter", "a small robot"]
WISHES = [
    "Tell me about {} in one sentence.",
    "Write a short poem about {}.",
    "What are three facts about {}?",
    "Explain {} to a child.",
    "Why would somebody love {}?",
]
PEERS = ["skipc-f32", "skipc-bf16", "transformers-f32", "transformers-bf16", "llama.cpp-bf16", "llama.cpp-f16"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prompt whose time is taken")
    parser.add_argument("--steps", type=int, default=16, help="steps behind it")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "peers")
    return parser.parse_args()


def compile_to(folder, artefact, dtype):
    """Compiles the directory; seconds, and the most memory that it took in MB."""
    started = time.monotonic()
    options = ["--dtype", f"cpu={dtype}", "--max-tokens", "512"]
    process = subprocess.Popen([ours.SKIPC, "compile", folder, "-o", artefact, *options], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit("skipc cannot compile the directory")
    return {"seconds": time.monotonic() - started, "peak_mb": used.ru_maxrss / 1024, "artefact_mb": artefact.stat().st_size / 1e6}


@torch.inference_mode()
def likeliest(reference, prompt, tokens):
    """What transformers takes for the likeliest token at each place of a continuation, and by how much.

    One pass over prompt and continuation: as long as they agree, these are the tokens that it would have continued by.
    """
    logits = reference.model(torch.tensor([prompt + tokens[:-1]])).logits[0, len(prompt) - 1 :]
    best = logits.topk(2)
    return best.indices[:, 0].tolist(), (best.values[:, 0] - best.values[:, 1]).tolist()


def compare(reference, peer, prompts, count):
    """How many continuations and tokens are equal; ends the run where a clear token differs."""
    equal, compared, close, least = 0, 0, [], float("inf")
    for number, prompt in enumerate(prompts):
        found, _, _ = peer.decode(prompt, count - 1)
        wanted, margins = likeliest(reference, prompt, found)
        differs = next((place for place in range(count) if found[place] != wanted[place]), None)
        compared += count if differs is None else differs
        least = min(least, *margins[: count if differs is None else differs + 1])
        if differs is None:
            equal += 1
        elif margins[differs] > MARGIN:
            sys.exit(f"prompt {number}, token {differs}: skipc gives {found[differs]}, transformers {wanted[differs]}, "
                     f"clear by {margins[differs]:.1e}")
        else:
            close.append({"prompt": number, "token": differs, "margin": margins[differs]})
        if number % 10 == 9:
            say(f"{number + 1} of {len(prompts)} prompts, {equal} the same")
    return {"prompts": len(prompts), "tokens": count, "equal": equal, "compared_tokens": compared, "least_margin": least, "close": close}


def chat(tokenizer, artefact, reference, wish, count):
    """What `skipc generate --chat` answers, which has to be what transformers says of the same chat."""
    given = ours.skipc("generate", artefact, "--chat", "--prompt", wish, "--max-new-tokens", count, "--json")
    [answer] = json.loads(given)["sequences"]
    prompt = ids(tokenizer, wish)
    tokens = answer["tokens"]
    wanted, _ = likeliest(reference, prompt, tokens)
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    if (answer["prompt_tokens"], tokens, answer["text"].strip()) != (len(prompt), wanted, text.strip()):
        sys.exit(f"the chat of skipc is {answer}, transformers has {len(prompt)} tokens of prompt, {wanted} and {text!r}")
    return answer["text"].strip()


def ids(tokenizer, wish):
    """The tokens of a chat, as transformers makes them."""
    chat = [{"role": "user", "content": wish}]
    return tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]


def peers(asked, folder, worker, artefacts):
    made = {}
    for name in PEERS:
        kind, dtype = name.rsplit("-", 1)
        if kind == "skipc":
            made[name] = ours.Decoder(worker, artefacts[dtype], asked.threads, folder)
        elif kind == "transformers":
            precision = torch.float32 if dtype == "f32" else torch.bfloat16
            made[name] = peer_decode.Transformers(asked.folder, asked.threads, precision)
        else:
            save_gguf(asked.folder, folder / f"{dtype}.gguf", dtype.upper())
            made[name] = peer_decode.LlamaCpp(folder / f"{dtype}.gguf", asked.threads)
    return made


def measure(made, prompt, asked):
    """Milliseconds of each round: of the median step, and of the prompt."""
    names, steps, prefills = list(made), {name: [] for name in made}, {name: [] for name in made}
    for number in range(asked.rounds):
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            rest()
            _, prefill, times = made[name].decode(prompt, asked.steps)
            steps[name].append(statistics.median(times))
            prefills[name].append(prefill)
        say(f"round {number + 1} of {asked.rounds}")
    return steps, prefills


def table(result):
    about, same = result["machine"], result["tokens"]
    lines = [
        f"SmolLM2-135M-Instruct from its directory (numbers of the Q4_1 and Q8_0 of its GGUF, in bf16): {about['processor']}, "
        f"{result['threads']} threads, load {about['load'][0]}, commit {about['commit']}",
        "",
        f"{same['equal']} of {same['prompts']} continuations of {same['tokens']} tokens are those of transformers in f32; "
        f"{same['compared_tokens']} tokens compared, {len(same['close'])} continuations end at a token that transformers chooses by less than {MARGIN}.",
        "",
        "| compile | seconds | peak memory, MB | artefact, MB |",
        "| --- | --- | --- | --- |",
    ]
    for dtype, made in result["compile"].items():
        lines.append(f"| {dtype} | {made['seconds']:.1f} | {made['peak_mb']:.0f} | {made['artefact_mb']:.0f} |")
    lines += ["", f"| peer | ms a token behind {result['prompt']} | times skipc-bf16 | ms of the prompt | times skipc-bf16 |", "| --- | --- | --- | --- | --- |"]
    for row in result["rows"]:
        lines.append(f"| {row['peer']} | {row['ms_a_token']:.2f} | {row['times']:.2f} | {row['prompt_ms']:.0f} | {row['prompt_times']:.2f} |")
    versions = ", ".join(f"{name} {version}" for name, version in peer_decode.versions().items())
    return "\n".join([*lines, "", f"Medians of {result['rounds']} rounds; ratios are medians of the rounds' ratios. {versions}", "",
                      f"`skipc generate --chat --prompt \"{result['chat']['prompt']}\"`: {result['chat']['answer']}", ""])


def main():
    asked, about, worker = arguments(), machine(), ours.Worker()
    tokenizer = transformers.AutoTokenizer.from_pretrained(asked.folder)
    wishes = [wish.format(thing) for thing in THINGS for wish in WISHES][: asked.prompts]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        say("compiles")
        artefacts = {dtype: folder / f"{dtype}.skp" for dtype in ("f32", "bf16")}
        compiled = {dtype: compile_to(asked.folder, path, dtype) for dtype, path in artefacts.items()}
        made = peers(asked, folder, worker, artefacts)
        reference = made["transformers-f32"]
        same = compare(reference, made["skipc-f32"], [ids(tokenizer, wish) for wish in wishes], asked.tokens)
        answer = chat(tokenizer, artefacts["f32"], reference, wishes[0], 48)
        text = " ".join(wishes)
        prompt = tokenizer.encode(text * 3)[: asked.prompt]
        steps, prefills = measure(made, prompt, asked)
    ratio = lambda times, name: statistics.median(time / other for time, other in zip(times[name], times["skipc-bf16"]))
    rows = [
        {"peer": name, "ms_a_token": statistics.median(steps[name]), "times": ratio(steps, name),
         "prompt_ms": statistics.median(prefills[name]), "prompt_times": ratio(prefills, name)}
        for name in made
    ]
    result = {"machine": about, "threads": asked.threads, "prompt": asked.prompt, "rounds": asked.rounds, "compile": compiled,
              "tokens": same, "chat": {"prompt": wishes[0], "answer": answer}, "rows": rows}
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "smollm2.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    (asked.out / "smollm2.md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()

"""The goals of decoding and what one run of `make peers-decode` found, as a table: tests/bench/results/decode-goals.md.

    python decode_goals.py            reads decode.json and decode-lazy.json, and peers/decode.json if there is one

Nothing is measured here. A figure that a report lacks is an error, one of a peer that did not run is said to be missing.
"""

import json
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"


def read(name):
    return json.loads((RESULTS / name).read_text())


def step(report, slots, density):
    found = [row for row in report["steps"] if (row["slots"], row["density"]) == (slots, density)]
    if not found:
        raise SystemExit(f"{report['model']}: no step of {slots} slots at density {density}")
    return found[0]


def form(report, name, density):
    found = [row for row in report.get("forms", []) if (row["form"], row["density"]) == (name, density)]
    if not found:
        raise SystemExit(f"{report['model']}: no steps with `{name}` at density {density}")
    return found[0]


def llama_cpp():
    """How many times as long llama.cpp takes for a token of the dense sibling in bf16, if it ran."""
    path = RESULTS / "peers" / "decode.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    ratios = [row["times_skipc_bf16"] for row in rows if row["peer"] == "llama.cpp-bf16" and row["density"] is None]
    return ratios[0] if ratios else None


def rows(report, lazy):
    """Goal, what it asks for at least, what was found, and of what."""
    densities = sorted({row["density"] for row in report["steps"] if row["density"] is not None})
    yield "D1", "dense, one slot: share of the memory's bandwidth", 0.8, step(report, 1, None)["bandwidth_share"]
    yield "D1", "llama.cpp in bf16 over skipc, same bytes", 1.0, llama_cpp()
    for density in densities:
        row = step(report, 1, density)
        yield "D2", f"one slot at density {density:g}: share of the memory's bandwidth", 0.8, row["bandwidth_share"]
        by_bytes = row["speed_over_dense"] / row["bytes_under_dense"]
        yield "D2", f"one slot at density {density:g}: speed over the dense sibling, over the ratio of bytes", 0.8, by_bytes
    waiting = form(lazy, "--kv lazy", 0.125)
    yield "D3", "keys and values that wait, density 0.125, multi-head: speed over those at once", 1.4, waiting["speed"]
    for prefill in report["prefills"]:
        name = "dense" if prefill["density"] is None else f"density {prefill['density']:g}"
        yield "D4", f"a prompt of {prefill['tokens']} in chunks of {prefill['chunk']}, {name}: speed over one score", 0.9, prefill["speed"]
    many = step(lazy, 32, None)["tokens_per_second"] / step(lazy, 1, None)["tokens_per_second"]
    yield "D4", "32 slots over one, tokens a second, dense, width 512", 12.0, many
    for far in report["far"]:
        name = "dense" if far["density"] is None else f"density {far['density']:g}"
        near, position = far["positions"]
        explained = far["bytes_ratio"] / far["time_ratio"]
        yield "D5", f"a step behind {position} over one behind {near}, {name}: bytes over time", 1 / 1.2, explained
    yield "D6", "weights of 8 bits over bf16, dense, one slot, width 1024", 1.6, form(report, "--dtype cpu=q8", None)["speed"]


def main():
    report, lazy = read("decode.json"), read("decode-lazy.json")
    about = f"{report['processor']}, {report['threads']} threads, {report['code']}, {report['read_bandwidth'] / 1e9:.1f} GB/s"
    lines = [
        f"Goals of decoding in one run of `make peers-decode`: {about}. Each is a least ratio.",
        "",
        "| goal | of what | at least | found | met |",
        "| --- | --- | --- | --- | --- |",
    ]
    for goal, what, least, found in rows(report, lazy):
        shown, met = ("not run", "") if found is None else (f"{found:.2f}", "yes" if found >= least else "**no**")
        lines.append(f"| {goal} | {what} | {least:.2f} | {shown} | {met} |")
    text = "\n".join([*lines, ""])
    (RESULTS / "decode-goals.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()

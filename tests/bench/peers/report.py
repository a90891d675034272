"""What was measured as JSON, tables and plots, and what it says of the goals."""

import json
import statistics

import plot

# Skip-FFN against the best peer: from which ratio on the goal is met, by density.
FFN_GOALS = {0.05: 1.3, 0.125: 1.3, 0.25: 1.3, 0.5: 1.15, 1: 1.05}
# Twelve blocks against the best form of compiled PyTorch.
BLOCK_GOAL = 1.5
# Time at an eighth of the tokens, as a share of the time for all.
PROPORTIONAL_GOAL = 0.16
# Share of the peak that matmuls reach inside of fused kernels, by LLVM and by Cranelift.
PEAK_GOALS = {"skipc": 0.9, "skipc-cranelift": 0.8}
# How many times as long f32 takes as bf16, where the processor has dot products of it.
BF16_GOAL = 1.6
# Seconds for twelve layers, and how many times as long 48 may take.
COMPILE_GOALS = (1.0, 1.5)


def quantile(values, share):
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]


def result(workload, threads, points):
    """All numbers of a workload on so many threads."""

    def peer(point, name):
        times = point.times[name]
        found = {
            "median_ms": statistics.median(times),
            "p10_ms": quantile(times, 0.1),
            "p90_ms": quantile(times, 0.9),
            "difference": point.differences[name],
            "times_ms": [round(time, 4) for time in times],
        }
        if "skipc" in point.times:
            pairs = zip(times, point.times["skipc"])
            found["times_ours"] = statistics.median(theirs / ours for theirs, ours in pairs)
        return found

    return {
        "workload": workload.name,
        "tokens": workload.tokens,
        "sequence": workload.length,
        "d": workload.d,
        "d_ff": workload.blocks[0].d_ff,
        "heads": workload.blocks[0].heads,
        "blocks": len(workload.blocks),
        "dtype": "f32",
        "threads": threads,
        "rounds": max(len(times) for point in points for times in point.times.values()),
        "points": [
            {
                "density": point.density,
                "rows": point.rows,
                "peers": {name: peer(point, name) for name in point.times},
            }
            for point in points
        ],
    }


def best(point, among=""):
    """The fastest of the others whose name has this in it: its name, and how many times as long as ours it takes."""
    others = {name: found for name, found in point["peers"].items() if not name.startswith("skipc") and among in name}
    if not others or "skipc" not in point["peers"]:
        return None
    return min(((found["times_ours"], name) for name, found in others.items()))


def table(result):
    """Milliseconds of all peers by density."""
    densities = [point["density"] for point in result["points"]]
    lines = [row(["peer", *(f"{density:g}" for density in densities)]), row(["---"] * (len(densities) + 1))]
    for name in result["points"][0]["peers"]:
        found = [point["peers"][name] for point in result["points"]]
        ratio = lambda it: f" ({it['times_ours']:.2f}×)" if "times_ours" in it and name != "skipc" else ""
        cells = (f"{it['median_ms']:.2f} ±{(it['p90_ms'] - it['p10_ms']) / 2:.2f}{ratio(it)}" for it in found)
        lines.append(row([name, *cells]))
    worst = max(it["difference"] for point in result["points"] for it in point["peers"].values())
    about = result["machine"]
    return "\n".join(
        [
            f"### {result['workload']}: {result['blocks']} × d {result['d']}, ff {result['d_ff']}, "
            f"{result['tokens']} tokens in sequences of {result['sequence']}, f32, {result['threads']} threads",
            "",
            "Milliseconds of a step by density: median, half of the distance from the 10th to the 90th percentile, and "
            "how many times as long as skipc.",
            "",
            *lines,
            "",
            f"{result['rounds']} rounds on {about['processor']}, {about['processors']} processors, load "
            f"{about['load'][0]}, {about['date']}, commit {about['commit']}, {result['device']}; "
            + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
            + f". Outputs differ by at most {worst:.1e} of the largest logit.",
            "",
        ]
    )


def row(cells):
    return "| " + " | ".join(cells) + " |"


def at(result, density):
    return next((point for point in result["points"] if point["density"] == density), None)


def matmul_share(result, variant):
    """Share of the peak that the two matmuls of the layer reach when all tokens execute, epilogues included."""
    steps, peak = result["steps"].get(variant, {}).get("1"), result["peak_gflops"]["f32"]
    if not steps or not peak:
        return None
    layer = [step for step in steps if "layers" in step["origin"] and "gemm" in step["kernel"]]
    operations = 4 * result["tokens"] * result["d"] * result["d_ff"]
    return operations / sum(step["ms"] for step in layer) / 1e6 / peak


def goals(results, compile_times):
    """Rows of goal, what it asks for, what was found, and whether that is enough."""
    rows = []

    def add(goal, asks, found, met):
        rows.append([goal, asks, found, "yes" if met else "no"])

    for result in results:
        threads = f"{result['threads']} threads"
        if result["workload"] == "skip-ffn":
            for density, asks in FFN_GOALS.items():
                point = at(result, density)
                if point and (found := best(point)):
                    asked = f"skip-FFN at {density:g}, {threads}: ≥ {asks}× the best peer"
                    add("C1", asked, f"{found[0]:.2f}× {found[1]}", found[0] >= asks)
            some, whole = at(result, 0.125), at(result, 1)
            if some and whole and "skipc" in some["peers"]:
                share = some["peers"]["skipc"]["median_ms"] / whole["peers"]["skipc"]["median_ms"]
                asked = f"time at 0.125, {threads}: ≤ {PROPORTIONAL_GOAL} of all"
                add("C2", asked, f"{share:.3f}", share <= PROPORTIONAL_GOAL)
            for variant, asks in PEAK_GOALS.items():
                if share := matmul_share(result, variant):
                    peak = result["peak_gflops"]["f32"]
                    asked = f"matmuls in kernels of {variant}, {threads}: ≥ {asks:.0%} of the peak of {peak:.0f} GFLOP/s"
                    add("C3", asked, f"{share:.0%}", share >= asks)
            for density in FFN_GOALS:
                point = at(result, density)
                if point and "bf16" in result["device"].lower() and "skipc-bf16" in point["peers"]:
                    ratio = 1 / point["peers"]["skipc-bf16"]["times_ours"]
                    add("C4", f"bf16 at {density:g}, {threads}: ≥ {BF16_GOAL}× f32", f"{ratio:.2f}×", ratio >= BF16_GOAL)
        else:
            for point in result["points"]:
                if found := best(point, "compiled"):
                    asked = f"{result['blocks']} blocks at {point['density']:g}, {threads}: ≥ {BLOCK_GOAL}× compiled PyTorch"
                    add("C5", asked, f"{found[0]:.2f}× {found[1]}", found[0] >= BLOCK_GOAL)
    for name in dict.fromkeys(title.split(",")[0] for title in compile_times):
        twelve, more = (compile_times[f"{name}, {layers} blocks"] for layers in (12, 48))
        weights = f"and {twelve['packing']:.2f} s for weights and known answers"
        if "cranelift" in name:
            asked = f"code of {name} with 12 blocks: < {COMPILE_GOALS[0]:g} s"
            add("C6", asked, f"{twelve['code']:.2f} s, {weights}", twelve["code"] < COMPILE_GOALS[0])
        ratio = more["code"] / twelve["code"]
        add("C6", f"code of {name}, 48 blocks: < {COMPILE_GOALS[1]}× of 12", f"{ratio:.2f}×", ratio < COMPILE_GOALS[1])
    return rows


def steps_table(result):
    """Where our time goes: milliseconds of each kernel, all its runs together, by density."""
    columns, by_density = {}, result["steps"].get("skipc", {})
    for density, steps in by_density.items():
        for step in steps:
            of_kernel = columns.setdefault(step["kernel"], {})
            of_kernel[density] = of_kernel.get(density, 0) + step["ms"]
    densities = list(by_density)
    lines = [row(["kernel", *densities]), row(["---"] * (len(densities) + 1))]
    lines += [row([name, *(f"{found[density]:.2f}" for density in densities)]) for name, found in columns.items()]
    return "\n".join(["Milliseconds of skipc by kernel and density:", "", *lines, ""])


def write(folder, results, compile_times):
    """All files of a run; prints the summary."""
    sections = []
    for result in results:
        path = folder / f"{result['workload']}-{result['threads']}"
        path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        plot.write(result, path.with_suffix(".svg"))
        sections.append(table(result) + "\n" + steps_table(result))
    lines = [row(["goal", "asks for", "found", "met"]), row(["---"] * 4)]
    lines += [row(cells) for cells in goals(results, compile_times)]
    summary = "\n".join(["# skipc beside its peers, on the CPU", "", *sections, "### Goals", "", *lines, ""])
    (folder / "summary.md").write_text(summary)
    print(summary)

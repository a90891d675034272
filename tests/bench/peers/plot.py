"""Time against density, one line a peer."""

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.fonttype"] = "none"
# Names inside of the file that do not change from run to run.
matplotlib.rcParams["svg.hashsalt"] = "skipc"

import matplotlib.pyplot as pyplot

STYLES = {"skipc-cranelift": "--", "skipc-bf16": ":"}


def write(result, path):
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    densities = [point["density"] for point in result["points"]]
    for name in result["points"][0]["peers"]:
        found = [point["peers"][name] for point in result["points"]]
        ours = name.startswith("skipc")
        (line,) = axes.plot(
            densities, [it["median_ms"] for it in found], marker="o", label=name, linewidth=2.5 if ours else 1.2,
            color="black" if ours else None, linestyle=STYLES.get(name, "-"), zorder=3 if ours else 2,
        )
        low, high = ([it[key] for it in found] for key in ("p10_ms", "p90_ms"))
        axes.fill_between(densities, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    axes.set(
        title=f"{result['workload']}, {result['tokens']} tokens, {result['threads']} threads",
        xlabel="share of the tokens that execute", ylabel="ms a step", xlim=(0, 1.02), ylim=(0, None),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)

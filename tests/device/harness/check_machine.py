"""Self-checks of the comparison with the PTX machine. Each yields (what, None or what is wrong).

Where the machine's results are not those of the build, they are what a perfect kernel leaves.
"""
import json
import time
from pathlib import Path

from .check_kernels import KERNEL, faults_for, write_code
from .kernel_cases import Suite, ideal
from .kernel_worker import run_case
from .kernels import run_kernels
from .machine import CHECK, SAME, VERSION, Machine
from .report import Quiet, Skipped
from .stand_in import StandIn, tolerated_bit


def flipped_bits_are_found(folder, scratch):
    """Among them bits that every allowance lets pass: nothing but this comparison may see those."""
    suite = Suite(folder / "kernels")
    machine = Machine(write_results(Path(scratch) / "ideal", exact_cases(suite)))
    found = dict.fromkeys(("bit", "element", "nan", "untouched"), 0)
    for case in exact_cases(suite):
        verdict = run_case(StandIn({}), None, case, KERNEL, machine)
        if (verdict.wrong, verdict.bits) != (None, SAME):
            yield f"{case.name} perfect", f"{verdict}"
        for fault in planted_in(case):
            verdict = run_case(StandIn({case.name: fault}), None, case, KERNEL, machine)
            seen = verdict.bits not in (None, SAME)
            found[fault] += seen
            if not seen:
                yield f"{case.name} {fault}", "the PTX machine's bits are said to be the same"
            if fault == "bit" and verdict.wrong:
                yield f"{case.name} {fault}", f"an allowance did not let it pass: {verdict.wrong}"
    for fault, n in found.items():
        yield fault, None if n >= (15 if fault == "bit" else 100) else f"was planted in {n} cases only"


def planted_in(case):
    yield from (fault for fault in faults_for(case) if fault in ("element", "nan", "untouched"))
    if tolerated_bit(case):
        yield "bit"


def exact_cases(suite):
    return [case for case in suite.cases if case.exact]


def write_results(place, cases):
    """Results of a machine that makes no mistake."""
    place.mkdir(parents=True, exist_ok=True)
    entries, data = [], bytearray()
    for case in cases:
        outputs = []
        for idx, bits in ((output.param, ideal(case)[output.param]) for output in case.outputs):
            outputs.append({"param": idx, "part": {"offset": len(data), "bytes": len(bits)}})
            data += bits.tobytes()
        entries.append({"name": case.name, "outputs": outputs})
    (place / "machine.bin").write_bytes(data)
    write_index(place, VERSION, entries)
    return place


def write_index(place, version, entries):
    (place / "machine.json").write_text(json.dumps({"version": version, "target": "pretend", "cases": entries}))


class Pretend:
    """Code for a few cases: those of kernels with room for a bit, and the first few others, exact and not."""

    def __init__(self, folder, place):
        self.suite = Suite(folder / "kernels")
        self.place = place
        self.roomy = [case for case in exact_cases(self.suite) if tolerated_bit(case)]
        few = [case for case in self.suite.cases if case.exact][:8] + [c for c in self.suite.cases if not c.exact][:8]
        self.kernels = sorted({case.kernel for case in self.roomy + few})
        self.cases = [case for case in self.suite.cases if case.kernel in self.kernels]
        self.exact = [case for case in self.cases if case.exact]
        self.code = write_code(folder, place, [self.kernels[::2], self.kernels[1::2]], [])

    def run(self, planted):
        """Entries of both kinds by the cases' names."""
        results = Quiet()
        run_kernels(self.place, "cuda:pretend", "cubin", results, time.monotonic() + 600, 2, device=planted)
        chosen = {case.name for case in self.cases}
        kinds = (results.document["cases"], results.document["machine"])
        checked, compared = ({e["name"]: e for e in kind if e["name"] in chosen} for kind in kinds)
        return checked, compared, results


def only_the_flipped_bit_fails(folder, scratch):
    """From the worker to the results: one bit in one case fails one check of that case, and nothing else."""
    pretend = Pretend(folder, Path(scratch) / "bits")
    write_results(pretend.code, pretend.exact)
    flipped, lost = pretend.roomy[3].name, pretend.roomy[7].name
    checked, compared, results = pretend.run({flipped: "bit", lost: "die"})
    for case in pretend.cases:
        wanted = ("failed" if case.name == lost else "passed", None)
        if case.exact:
            wanted = (wanted[0], {flipped: "failed", lost: "skipped"}.get(case.name, "passed"))
        got = (checked[case.name]["status"], compared.get(case.name, {}).get("status"))
        yield case.name, None if got == wanted else f"{got}, wanted {wanted}"
    detail = compared[flipped].get("detail", "")
    yield "it says where", None if "; 1 of" in detail and "on the PTX machine" in detail else f"it said {detail!r}"
    yield "its own row", None if f"kernels cuda:pretend cubin {CHECK}" in results.table() else results.table()


def builds_without_results_are_skipped(folder, scratch):
    pretend = Pretend(folder, Path(scratch) / "without")
    n_exact = len(exact_cases(pretend.suite))
    for what, status in (("none", "skipped"), ("another format", "failed"), ("no data", "failed"), ("no case", "failed")):
        if what != "none":
            write_results(pretend.code, pretend.exact)
        if what == "another format":
            write_index(pretend.code, VERSION + 1, [])
        elif what == "no data":
            (pretend.code / "machine.bin").write_bytes(b"")
        elif what == "no case":
            write_index(pretend.code, VERSION, [])
        checked, compared, results = pretend.run({})
        statuses = {entry["status"] for entry in compared.values()}
        yield what, None if statuses == {status} else f"{statuses}, wanted {status}"
        n = len(results.document["machine"])
        yield f"{what}, counted", None if n == n_exact else f"{n} of {n_exact} cases"
        others = {entry["status"] for entry in checked.values()}
        yield f"{what}, other checks", None if others == {"passed"} else f"{others}"
        if what == "none":
            counts = results.counts()
            yield "not passed", None if counts["skipped"] >= n_exact else f"{counts}"


def built_results_are_complete(folder, _scratch):
    """Each exact case that has code was run on the machine, with the bits that a perfect kernel leaves."""
    build = json.loads((folder / "build.json").read_text())
    suite = Suite(folder / "kernels")
    if not build["cuda"]:
        yield "results", Skipped("this build has no CUDA code")
    for target in build["targets"] if build["cuda"] else []:
        place = folder / "kernels" / target.replace(":", "-")
        code = json.loads((place / "code.json").read_text())
        refused = {entry["kernel"] for entry in code["refused"]}
        machine = Machine(place)
        wanted = [case for case in exact_cases(suite) if case.kernel not in refused]
        complete = [case.name for case in wanted] == list(machine.outputs)
        yield f"{target} is complete", None if complete else f"{len(machine.outputs)} of {len(wanted)} cases"
        said = build["machine_cases"][target]
        yield f"{target} in build.json", None if said == len(wanted) else f"{said}, {len(wanted)} are there"
        for case in wanted:
            bits = machine.compare(case, ideal(case))
            yield f"{target} {case.name}", None if bits == SAME else f"{bits}"


MACHINE_CHECKS = [
    flipped_bits_are_found,
    only_the_flipped_bit_fails,
    builds_without_results_are_skipped,
    built_results_are_complete,
]

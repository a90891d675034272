"""The results file and the table that people see."""
import json
import os
import threading
from collections import Counter
from pathlib import Path

SHOWN = 25

# Lists of entries that are counted.
KINDS = ("cases", "machine", "models", "sanitizer")


class Results:
    """Everything that was found, saved again after each phase so that an early end loses little."""

    def __init__(self, path, about):
        self.path = Path(path) if path else None
        self.lock = threading.RLock()
        self.document = {**about, "cases": [], "machine": [], "models": [], "timings": [], "sanitizer": [], "notes": []}

    def add_case(self, entry):
        self._add("cases", entry)

    def add_machine(self, entry):
        self._add("machine", entry)

    def add_model(self, entry):
        self._add("models", entry)

    def add_sanitizer(self, entry):
        self._add("sanitizer", entry)

    def note(self, text):
        with self.lock:
            self.document["notes"].append(text)
        print(text, flush=True)

    def _add(self, kind, entry):
        with self.lock:
            self.document[kind].append(entry)
            failed = sum(e["status"] == "failed" for e in self.entries())
            if entry["status"] == "failed" and failed <= SHOWN:
                print(f"FAILED {describe(entry)}: {entry.get('detail')}", flush=True)

    def entries(self):
        return [entry for kind in KINDS for entry in self.document[kind]]

    def counts(self):
        counts = Counter(entry["status"] for entry in self.entries())
        return {status: counts[status] for status in ("passed", "failed", "skipped")}

    def save(self):
        if self.path is None:
            return
        with self.lock:
            self.document.update(self.counts())
            for kind in KINDS:
                self.document[kind].sort(key=describe)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_name(self.path.name + ".part")
            part.write_text(json.dumps(self.document, indent=1) + "\n")
            os.replace(part, self.path)

    def table(self):
        """Counts for each group of entries, with the closest call of each."""
        groups = {}
        for entry in self.entries():
            groups.setdefault(group(entry), []).append(entry)
        width = max([30, *map(len, groups)]) + 2
        lines = [f"{'':{width}}{'passed':>8}{'failed':>8}{'skipped':>9}  closest to its bound"]
        for name, entries in groups.items():
            counts = Counter(entry["status"] for entry in entries)
            closest = max(entries, key=share)
            near = f"{100 * share(closest):.0f} %, {closest['name']}" if share(closest) > 0 else ""
            lines.append(f"{name:{width}}{counts['passed']:8}{counts['failed']:8}{counts['skipped']:9}  {near}")
        counts = self.counts()
        lines.append(f"{'all':{width}}{counts['passed']:8}{counts['failed']:8}{counts['skipped']:9}")
        return "\n".join(lines)


class Skipped(str):
    """Why a self-check could not look at something; anything else that it says is wrong."""


class Quiet(Results):
    """Results in memory alone that print nothing, for checks which want failures."""

    def __init__(self):
        super().__init__(None, {})

    def _add(self, kind, entry):
        with self.lock:
            self.document[kind].append(entry)


def group(entry):
    if "form" in entry:
        return f"model {entry['form']} {entry['check'].split('-')[0]}"
    if "tool" in entry:
        return f"sanitizer {entry['tool']}"
    return " ".join(["kernels", entry["target"], entry["code"], *([entry["check"]] if "check" in entry else [])])


def share(entry):
    """How much of its bound an entry that passed used."""
    if entry["status"] != "passed":
        return 0.0
    if entry.get("allowed"):
        return entry["error"] / entry["allowed"]
    return entry.get("used") or 0.0


def describe(entry):
    return " ".join(str(entry[key]) for key in ("target", "code", "tool", "form", "check", "name") if key in entry)

"""What can go wrong, as exceptions with the codes that the command line shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Optional


@dataclass(frozen=True)
class Label:
    """A place in a file. Lines and columns count from 1, columns in characters; `start` and `end` are bytes."""

    file: str
    line: int
    column: int
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Finding:
    """One thing that was found: what is wrong, where, and what to write instead."""

    code: str
    severity: str
    message: str
    help: Optional[str]
    labels: tuple[Label, ...]

    @classmethod
    def of(cls, found: dict[str, Any]) -> Finding:
        labels = tuple(Label(file=found["file"], **label) for label in found["labels"])
        return cls(found["code"], found["severity"], found["message"], found["help"], labels)

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.message}"]
        for label in self.labels:
            lines.append(f"  --> {label.file}:{label.line}:{label.column} {label.text}".rstrip())
        if self.help:
            lines.append(f"  help: {self.help}")
        return "\n".join(lines)


class Error(Exception):
    """Why a model could not be compiled, loaded or run. `skipc explain CODE` says more about a code.

    `code`, `message`, `help` and `labels` are those of the first finding; `findings` has all of them.
    """

    def __init__(self, findings: list[Finding], left_off: int = 0) -> None:
        text = "\n".join(str(finding) for finding in findings)
        super().__init__(text + (f"\nand {left_off} more" if left_off else ""))
        self.findings = tuple(findings)
        self.code = findings[0].code
        self.message = findings[0].message
        self.help = findings[0].help
        self.labels = findings[0].labels
        self._left_off = left_off

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self.findings), self._left_off)

    @classmethod
    def _of_json(cls, text: str) -> Error:
        found = json.loads(text)
        all_found = [*found["errors"], *found["warnings"]]
        return cls([Finding.of(one) for one in all_found], found["left_off"])


class InputError(Error):
    """A spec, weights, tokens or another input is wrong, or cannot be read or written."""


class RequestError(Error):
    """What was asked for does not exist or contradicts itself."""


class MismatchError(Error):
    """Two forms of a model give different results."""


class UnsupportedError(Error):
    """The target cannot do this, or this build or machine has no such target."""


class InternalError(Error):
    """A fault of skipc."""


class ModelWarning(UserWarning):
    """What a model may ask for and its author should know; `finding` says where."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding

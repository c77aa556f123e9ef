"""What the doctor says: one finding a fault, in a form that people and scripts can read."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or that should be looked at.

    Args:
        severity: ``error`` must be mended, ``warning`` should be looked at, ``note`` is good to
            know.
        check: Which check found it, e.g. ``undeclared values``.
        case: Whose it is; empty for the data set as a whole.
        found: What is there, with units.
        expected: What should be there instead.
        remedy: What to do.
    """

    severity: Severity
    check: str
    case: str
    found: str
    expected: str
    remedy: str


def finding_of(error: Exception, check: str, case: str = "") -> Finding:
    """Return a refusal as a finding: its last line, if indented, says what to do."""
    lines = str(error).removeprefix(f"{case}: ").splitlines() or [type(error).__name__]
    remedy = lines.pop().strip() if len(lines) > 1 and lines[-1].startswith("  ") else ""
    return Finding("error", check, case, "\n".join(lines), "", remedy)


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings with the gravest first."""
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.check, f.case)))

"""The doctor: says what is wrong with a data set before a night of training does.

Cases are read once, in parallel, into facts; checks are pure functions over the facts; what they
find is a finding with its remedy.
"""

from medseg.doctor.checks import CHECKS
from medseg.doctor.examine import examine_cases
from medseg.doctor.facts import CaseFacts, DataFacts
from medseg.doctor.findings import SEVERITIES, Finding, finding_of, sorted_findings
from medseg.doctor.report import write_report

__all__ = [
    "CHECKS",
    "SEVERITIES",
    "CaseFacts",
    "DataFacts",
    "Finding",
    "diagnose",
    "examine_cases",
    "finding_of",
    "sorted_findings",
    "write_report",
]


def diagnose(data: DataFacts) -> tuple[Finding, ...]:
    """Return what all checks find, the gravest first."""
    found = [finding for name in CHECKS for finding in CHECKS.build(name, data)]
    return sorted_findings(found)

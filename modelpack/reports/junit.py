"""JUnit XML, as Jenkins, GitLab and other continuous integration servers read it."""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from modelpack.parity import TensorDiff, Verdict
from modelpack.reports.words import counted
from modelpack.steps import Finding
from modelpack.validation import ArtifactResult, ValidationReport, holds

# Characters that XML 1.0 has no way to write (section 2.2 of the recommendation).
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: ValidationReport) -> str:
    """Return one test suite: cases for each artifact, each check of its structure, each output.

    A case fails with what it is of. One that could not be judged (``unverified`` or
    ``inconclusive``) is skipped, with the reason.
    """
    report = report.titled()
    suite = Element("testsuite", name=_text(report.model))
    for item in report.artifacts:
        suite.append(_artifact(report.model, item))
        suite.extend(_check(report.model, item, finding) for finding in item.structure)
        suite.extend(_output(report.model, item, diff) for diff in item.parity.outputs)
    counts = {
        "tests": len(suite),
        "failures": len(suite.findall("testcase/failure")),
        "errors": 0,
        "skipped": len(suite.findall("testcase/skipped")),
    }
    for name, count in counts.items():
        suite.set(name, str(count))
    root = Element("testsuites")
    root.append(suite)
    indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + tostring(root, "unicode") + "\n"


def _artifact(model: str, item: ArtifactResult) -> Element:
    case = _case(model, item.path)
    reason = "; ".join(item.reasons)
    if item.verdict is Verdict.FAILED:
        _outcome(case, "failure", item.verdict, reason)
    elif item.verdict is not Verdict.PASSED:
        _outcome(case, "skipped", item.verdict, reason)
    parity = item.parity
    if parity.cases:
        fed = f"{counted(parity.cases, 'case')}, {counted(parity.rows, 'row')}"
        said = f"{fed}; reference: {parity.reference}; runtime: {parity.runtime}"
        SubElement(case, "system-out").text = _text(said)
    return case


def _check(model: str, item: ArtifactResult, finding: Finding) -> Element:
    case = _case(model, f"{item.path}: {finding.name}")
    if not finding.ok:
        _outcome(case, "failure", Verdict.FAILED, finding.detail)
    return case


def _output(model: str, item: ArtifactResult, diff: TensorDiff) -> Element:
    case = _case(model, f"{item.path}: output {diff.name}")
    if not holds(diff, item.parity):
        _outcome(case, "failure", Verdict.FAILED, f"{_figures(diff)}. {item.parity.reason}")
    elif item.verdict is Verdict.INCONCLUSIVE:
        _outcome(case, "skipped", Verdict.INCONCLUSIVE, item.parity.reason)
    SubElement(case, "system-out").text = _text(_figures(diff))
    return case


def _figures(diff: TensorDiff) -> str:
    noise = "" if diff.max_noise is None else f" ({diff.max_noise:.3g} times the noise floor)"
    return (
        f"{diff.mismatches} of {diff.elements} elements differ, max abs {diff.max_abs:.3g}, "
        f"max rel {diff.max_rel:.3g}{noise}, {diff.flips} flips, {diff.ties} ties, "
        f"{diff.thresholds} rows on thresholds"
    )


def _case(model: str, name: str) -> Element:
    return Element("testcase", classname=_text(model), name=_text(name))


def _outcome(case: Element, tag: str, verdict: Verdict, message: str) -> None:
    SubElement(case, tag, type=verdict.value, message=_text(message))


def _text(value: str) -> str:
    return _NO_XML.sub(lambda found: f"\\x{ord(found[0]):02x}", value)

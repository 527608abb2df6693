"""One self-contained HTML page: figures to look at, and every number they stand for.

Nothing is loaded from elsewhere and no script runs, so that a page can be mailed, archived and
opened from a build server under a strict content policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from importlib import resources

from modelpack.manifest import Source
from modelpack.parity import ParityReport, TensorDiff, Verdict
from modelpack.reports import charts
from modelpack.reports.charts import Row
from modelpack.reports.words import counted, difference, milliseconds, size
from modelpack.signature import Signature
from modelpack.steps import Finding
from modelpack.validation import (
    ArtifactResult,
    Bench,
    Departure,
    OutputDetails,
    Score,
    ValidationReport,
)

_HOLDS = {True: Verdict.PASSED, False: Verdict.FAILED}
_MOST_CLASSES = 12  # of a confusion table; others are added up

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(report: ValidationReport) -> str:
    """Return the page; figures of distributions are in it if the report has details."""
    report = report.titled()
    parts = [
        _header(report),
        _verdicts(report),
        _scores(report),
        _costs(report),
        *(_artifact(item) for item in report.artifacts),
        _provenance(report),
    ]
    style = resources.files(__package__).joinpath("report.css").read_text("utf-8")
    title = escape(f"{report.model}: {report.verdict}")
    body = "\n".join(part for part in parts if part)
    # A lone surrogate, as in an undecodable file name, has no place in UTF-8.
    return _PAGE.format(title=title, style=style, body=body).encode("utf-8", "replace").decode()


def _header(report: ValidationReport) -> str:
    name = f"<h1>{escape(report.model)}</h1>"
    return f"<header>{name}{_verdict(report.verdict)}</header>"


# --- all artifacts -------------------------------------------------------------------


def _verdicts(report: ValidationReport) -> str:
    head = ("artifact", "verdict", "max error", "over noise", "flips", "ties", "precision", "size")
    rows = []
    for item in report.artifacts:
        outputs = item.parity.outputs
        noise = item.parity.max_noise
        rows.append(
            [
                _code(item.path),
                _verdict(item.verdict),
                _figure(item.parity.max_rel) if outputs else "-",
                "-" if noise is None else _figure(noise),
                str(max((diff.flips for diff in outputs), default=0)) if outputs else "-",
                str(max((diff.ties for diff in outputs), default=0)) if outputs else "-",
                escape(item.precision),
                size(item.size),
            ]
        )
    return _section("Verdicts", _table(head, rows))


def _scores(report: ValidationReport) -> str:
    head = ("artifact", "metric", "value", "reference", "difference (95 % interval)", "samples")
    rows = []
    pictured: dict[str, list[tuple[str, Score, str]]] = {}
    for item in report.artifacts:
        for score in item.scores:
            words = difference(score)
            known = score.reference is not None
            value = _figure(score.value, 4)
            reference = _figure(score.reference, 4) if score.reference is not None else "-"
            cells = [score.metric, value, reference, words, str(score.samples)]
            rows.append([_code(item.path), *map(escape, cells)])
            if known:
                pictured.setdefault(score.metric, []).append((item.path, score, words))
    if not rows:
        return ""
    figures = [_differences(metric, pairs) for metric, pairs in pictured.items()]
    return _section("Metrics", _table(head, rows), *figures)


def _differences(metric: str, rows: Sequence[tuple[str, Score, str]]) -> str:
    references = sorted({score.compared_with for _, score, _ in rows})
    caption = f"{metric} of the artifact less that of {', '.join(references)}"
    return _chart(charts.differences(rows), caption)


def _costs(report: ValidationReport) -> str:
    sizes = [Row(item.path, item.size, size(item.size)) for item in report.artifacts if item.size]
    parts = [_chart(charts.bars(sizes, "Sizes"), "Size of the artifact")] if sizes else []
    benched = [(item.path, item.bench) for item in report.artifacts if item.bench is not None]
    if benched:
        calls = max(bench.calls for _, bench in benched)
        latencies = [Row(path, bench.p50, _latency(bench), bench.p95) for path, bench in benched]
        memory = [Row(path, bench.peak_memory, size(bench.peak_memory)) for path, bench in benched]
        caption = f"Latency of one call: median, and 95th percentile, of {calls} calls"
        parts.append(_chart(charts.bars(latencies, "Latencies"), caption))
        caption = "Peak memory of a process that loads and runs it, runtime included"
        parts.append(_chart(charts.bars(memory, "Peak memory"), caption))
    return _section("Size and speed", *parts) if parts else ""


def _latency(bench: Bench) -> str:
    return f"{milliseconds(bench.p50)}, p95 {milliseconds(bench.p95)}"


# --- one artifact --------------------------------------------------------------------


def _artifact(item: ArtifactResult) -> str:
    parts = [f"<p>{_verdict(item.verdict)}</p>"]
    parts += [
        f'<p class="reason {item.verdict}"><span>{escape(reason)}</span></p>'
        for reason in item.reasons
    ]
    if item.parity.cases:
        parts.append(f'<p class="muted">{escape(_compared(item.parity))}</p>')
        parts.append(_outputs(item.parity))
    for details in item.details:
        parts.append(_details(details))
    if item.departure is not None:
        parts.append(_departure(item.departure))
    if item.structure:
        parts.append(_structure(item.structure))
    if item.signature is not None:
        parts.append(_signature(item.signature))
    return _section(item.path, *parts)


def _compared(parity: ParityReport) -> str:
    limit = ""
    if parity.noise_limit is not None:
        limit = f"accepted: {parity.noise_limit:g} times the noise floor"
    elif parity.rms_limit is not None:
        limit = f"accepted: {parity.rms_limit:g} of the output's standard deviation"
    elif parity.tolerance is not None:
        limit = f"accepted: rtol {parity.tolerance.rtol:g}, atol {parity.tolerance.atol:g} of scale"
    words = [
        f"{parity.runtime} against {parity.reference}" if parity.runtime else parity.reference,
        f"{counted(parity.cases, 'case')}, {counted(parity.rows, 'row')}",
        limit,
    ]
    return "; ".join(filter(None, words))


_COLUMNS = (
    *("output", "elements", "wrong", "max abs", "max rel", "mean rel", "max ulp", "over noise"),
    *("cosine", "flips", "ties", "on thresholds", "top-5 flips", "sign flips"),
)


def _outputs(parity: ParityReport) -> str:
    return _table(_COLUMNS, [_output_row(diff) for diff in parity.outputs])


def _output_row(diff: TensorDiff) -> list[str]:
    return [
        _code(diff.name),
        f"{diff.elements:,}",
        f"{diff.mismatches:,}",
        _figure(diff.max_abs),
        _figure(diff.max_rel),
        _figure(diff.mean_rel),
        _figure(diff.max_ulp),
        "-" if diff.max_noise is None else _figure(diff.max_noise),
        f"{diff.cosine:.9g}",
        *(str(count) for count in (diff.flips, diff.ties, diff.thresholds)),
        *(str(count) for count in (diff.top_flips, diff.sign_flips)),
    ]


def _details(found: OutputDetails) -> str:
    parts = []
    if found.histogram is not None:
        unit = found.histogram.unit
        parts.append(
            _chart(
                charts.histogram(found.histogram, found.name),
                f"Elements of output {found.name} by their error, in units of the {unit}",
            )
        )
        if len(found.kinds) > 1:
            picture = charts.kinds(found.kinds, found.histogram.limit, unit)
            parts.append(_chart(picture, f"Largest error of {found.name} by kind of inputs"))
    if found.changes:
        parts.append(_confusion(found))
    return "\n".join(parts)


def _confusion(found: OutputDetails) -> str:
    """Changed decisions by class: the reference's down, the candidate's across."""
    weight: dict[str, int] = {}
    for change in found.changes:
        for name in (change.reference, change.candidate):
            weight[name] = weight.get(name, 0) + change.count
    frequent = sorted(weight, key=lambda name: (-weight[name], name))[:_MOST_CLASSES]
    names = sorted(frequent, key=lambda name: (len(name), name))
    cells: dict[tuple[str, str], int] = {}
    for change in found.changes:
        if change.reference in names and change.candidate in names:
            cells[change.reference, change.candidate] = change.count
    most = max(cells.values(), default=1)
    rows = [
        f"<tr><th>{escape(row)}</th>"
        + "".join(_cell(cells.get((row, column), 0), most) for column in names)
        + "</tr>"
        for row in names
    ]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    others = found.changed - sum(cells.values())
    more = f"; {others} between other classes are not shown" if others else ""
    caption = (
        f"Changed decisions of output {found.name}, ties included: {found.changed} rows{more}. "
        "Down: the reference's class; across: the candidate's."
    )
    return (
        f"<figure><figcaption>{escape(caption)}</figcaption>"
        f'<div class="wide"><table class="confusion"><tr><th></th>{head}</tr>'
        f"{''.join(rows)}</table></div></figure>"
    )


def _cell(count: int, most: int) -> str:
    if not count:
        return "<td></td>"
    return f'<td style="--share:{15 + round(60 * count / most)}%">{count}</td>'


def _departure(found: Departure) -> str:
    """The first wrong tensor, and the errors on the way to it."""
    node = f" (node {found.node})" if found.node else ""
    error = "NaN or infinity on one side" if found.error is None else f"error {found.error:.3g}"
    facts = {
        "first wrong tensor": f"{found.tensor}, computed by {found.op}{node}",
        "should equal": f"{found.reference}, computed by {found.reference_op}",
        "error": f"{error}, after {found.error_before:.3g} before it",
        "confirmed": "with the reference's value there, the outputs are right"
        if found.confirmed
        else "no",
        "the fault is in one of": ", ".join(found.ops),
        "reproduction": ", ".join(f"{found.directory}/{file}" for file in found.files),
    }
    rows = [[escape(name), _code(words)] for name, words in facts.items() if words]
    parts = ["<h3>Where it went wrong</h3>", _table(("what", "which"), rows, "words")]
    if found.curve:
        points = [(item.tensor, item.error) for item in found.curve]
        caption = "Error of each tensor over its own size, in the order of computation"
        parts.append(_chart(charts.curve(points, found.tensor), caption))
    return "\n".join(parts)


def _structure(findings: Sequence[Finding]) -> str:
    rows = [
        [escape(item.name), _verdict(_HOLDS[item.ok]), escape(item.detail)] for item in findings
    ]
    return "<h3>Structure</h3>" + _table(("check", "", "what was seen"), rows, "words")


def _signature(signature: Signature) -> str:
    rows = [
        [kind, _code(str(spec)), escape(str(spec.meaning or ""))]
        for kind, side in (("input", signature.inputs), ("output", signature.outputs))
        for spec in side
    ]
    return "<h3>Signature</h3>" + _table(("", "tensor", "meaning"), rows, "words")


# --- where it came from --------------------------------------------------------------


def _provenance(report: ValidationReport) -> str:
    facts = {"modelpack": report.modelpack} if report.modelpack else {}
    if report.source is not None:
        facts |= _source(report.source)
    for item in report.artifacts:
        words = [item.digest, item.parity.runtime]
        facts[item.path] = ", ".join(filter(None, words))
    rows = [[escape(name), _code(words)] for name, words in facts.items() if words]
    return _section("Provenance", _table(("what", "which"), rows, "words")) if rows else ""


def _source(source: Source) -> dict[str, str]:
    weights = ", ".join(source.weights.values())
    versions = ", ".join(f"{name} {version}" for name, version in source.versions.items())
    return {
        "source": f"{source.file} ({source.framework})",
        "digest of the source": source.digest,
        "weights of the source": weights,
        "versions": versions,
    }


# --- parts ---------------------------------------------------------------------------


def _section(title: str, *parts: str) -> str:
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _chart(picture: str, caption: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>\n{picture}\n</figure>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of cells that are HTML already, below titles that are text."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    lines = "\n".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    start = f'<div class="wide"><table class="{kind}">' if kind else '<div class="wide"><table>'
    return f"{start}\n<tr>{titles}</tr>\n{lines}\n</table></div>"


def _verdict(verdict: Verdict) -> str:
    return f'<span class="verdict {verdict}">{verdict}</span>'


def _code(words: str) -> str:
    return f"<code>{escape(words)}</code>"


def _figure(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if math.isfinite(value) else str(value)

"""Renders what the verbs return: tables for people, JSON for programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelpack.artifact import MANIFEST_NAME, Artifact
from modelpack.cli.terminal import Manner, print_json, stderr, stdout
from modelpack.manifest import Manifest
from modelpack.parity import ParityReport, Verdict
from modelpack.reports.words import difference, milliseconds, size
from modelpack.routes import Route
from modelpack.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from modelpack.steps import Description
    from modelpack.validation import Departure, ValidationReport
    from modelpack.verbs.doctor import Diagnosis
    from modelpack.verbs.inspect import Inspection

_STYLES = {
    Verdict.PASSED: "green",
    Verdict.FAILED: "bold red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.UNVERIFIED: "yellow",
}
_MANY = 12  # ops or classes shown before the rest is counted


def manifest(value: Manifest, manner: Manner, output: Path) -> None:
    """Show what is now at an output."""
    if manner.json:
        print_json(value)
    if manner.json or manner.quiet:
        return
    console = stdout()
    _heading(console, value)
    table = _table("artifact", "size", "precision", "verdict", "max error", "notes")
    for item in value.artifacts:
        table.add_row(
            item.path,
            size(item.size),
            item.precision,
            _verdict(item.parity.verdict),
            error_figure(item.parity),
            "; ".join([*_signature_note(value, item), *_notes(item)]),
        )
    console.print(table)
    where = output / MANIFEST_NAME if output.is_dir() else f"{output}.{MANIFEST_NAME}"
    console.print(f"manifest: {where}")


def routes(values: list[Route], manner: Manner) -> None:
    """Show routes with their converters."""
    if manner.json:
        print_json({"routes": [{"route": str(route), "steps": route.steps} for route in values]})
    if manner.json or manner.quiet:
        return
    console = stdout()
    for route in values:
        console.print(str(route))
        for step in route.steps:
            console.print(f"  {step}")


def validation(report: ValidationReport, manner: Manner) -> None:
    """Show the verdict on each artifact, and each output that failed."""
    if manner.json:
        from modelpack.reports import document

        print_json(document.document(report))
    report = report.titled()
    for item in report.artifacts:
        for line in item.reasons:
            style = "bold red" if item.verdict is Verdict.FAILED else "yellow"
            stderr().print(f"{item.verdict}: {item.path}: {line}", style=style)
    if manner.json or manner.quiet:
        return
    console = stdout()
    console.print(_verdicts(report))
    if any(item.scores for item in report.artifacts):
        console.print(_scores(report))
    if any(item.bench for item in report.artifacts):
        console.print(_costs(report))
    for item in report.artifacts:
        if item.departure is not None:
            _departure(console, item.path, item.departure)


def _departure(console: Console, path: str, found: Departure) -> None:
    sure = "" if found.confirmed else ", probably"
    here = " ".join(filter(None, (found.op, found.node)))
    error = "NaN or infinity" if found.error is None else f"{found.error:.2g}"
    console.print(f"{path} departs at {here}{sure}: tensor '{found.tensor}'")
    console.print(f"  reference: {found.reference} ({found.reference_op})")
    console.print(f"  error {error}, before it {found.error_before:.2g}")
    if len(found.ops) > 1:
        console.print(f"  one of: {', '.join(found.ops)}")
    if found.files:
        console.print(f"  python {found.directory}/reproduce.py shows it")


def _verdicts(report: ValidationReport) -> Table:
    table = _table(
        "artifact", "size", "verdict", "max error", "x noise", "flips", "ties", "on thresholds"
    )
    for item in report.artifacts:
        outputs = item.parity.outputs
        noise = item.parity.max_noise
        table.add_row(
            item.path,
            size(item.size),
            _verdict(item.verdict),
            f"{item.parity.max_rel:.1e}" if outputs else "-",
            "-" if noise is None else f"{noise:.2g}",
            str(max(diff.flips for diff in outputs)) if outputs else "-",
            str(max(diff.ties for diff in outputs)) if outputs else "-",
            str(max(diff.thresholds for diff in outputs)) if outputs else "-",
        )
    return table


def _scores(report: ValidationReport) -> Table:
    table = _table("artifact", "metric", "value", "reference", "difference (95 % CI)")
    for item in report.artifacts:
        for index, score in enumerate(item.scores):
            table.add_row(
                "" if index else item.path,
                score.metric,
                f"{score.value:.4g}",
                "-" if score.reference is None else f"{score.reference:.4g}",
                difference(score),
            )
    return table


def _costs(report: ValidationReport) -> Table:
    table = _table("artifact", "precision", "latency p50", "p95", "peak memory")
    for item in report.artifacts:
        bench = item.bench
        table.add_row(
            item.path,
            item.precision,
            "-" if bench is None else milliseconds(bench.p50),
            "-" if bench is None else milliseconds(bench.p95),
            "-" if bench is None else size(bench.peak_memory),
        )
    return table


def written(paths: list[Path], manner: Manner) -> None:
    """Show what a packaging wrote."""
    if manner.json:
        print_json({"written": [str(path) for path in paths]})
    if manner.json or manner.quiet:
        return
    for path in paths:
        stdout().print(str(path))


def inspection(found: Inspection, manner: Manner) -> None:
    """Show what a model is and holds."""
    if manner.json:
        print_json(found)
    if manner.json or manner.quiet:
        return
    console = stdout()
    console.print(f"{found.model}: {found.format or 'modelpack'} ({found.encoding})")
    if found.size:
        console.print(f"size: {size(found.size)}   digest: {found.digest}")
    if found.findings:
        console.print("not loaded, because loading can run code that it contains:", style="yellow")
        for finding in found.findings:
            console.print(f"  - {finding}")
    if found.description is not None:
        _description(console, found.description)
    if found.manifest is not None:
        console.print()
        _heading(console, found.manifest)
        table = _table("artifact", "size", "precision", "verdict", "max error", "route")
        for item in found.manifest.artifacts:
            table.add_row(
                found.manifest.title(item),
                size(item.size),
                item.precision,
                _verdict(item.parity.verdict),
                error_figure(item.parity),
                " -> ".join(step.converter.rpartition(".")[2] for step in item.steps),
            )
        console.print(table)


def diagnosis(found: Diagnosis, manner: Manner) -> None:
    """Show installed extras and working routes."""
    if manner.json:
        print_json(found)
    if manner.json or manner.quiet:
        return
    console = stdout()
    console.print(f"modelpack {found.modelpack}, Python {found.python}, {found.platform}")
    table = _table("extra", "libraries", "to install what is missing")
    for extra in found.extras:
        libraries = ", ".join(f"{name} {ver or 'missing'}" for name, ver in extra.libraries.items())
        table.add_row(extra.name, libraries, "" if extra.complete else extra.install)
    console.print(table)
    from rich.text import Text

    table = _table("from", "to", "works", "route")
    for route in found.routes:
        state = Text("yes", "green") if route.works else Text("no", "red")
        detail = route.route or "no route yet"
        if route.missing:
            detail += f" (missing: {', '.join(route.missing)})"
        table.add_row(route.source, route.target, state, detail)
    console.print(table)


# --- parts ---------------------------------------------------------------------------


def error_figure(report: ParityReport) -> str:
    """The largest error relative to the output's scale, and in units of the noise floor."""
    if not report.outputs:
        return "-"
    noise = report.max_noise
    return f"{report.max_rel:.1e}" + ("" if noise is None else f" ({noise:.2g} x noise)")


def _verdict(verdict: Verdict) -> Text:
    from rich.text import Text

    return Text(verdict, _STYLES[verdict])


def _signature_note(value: Manifest, item: Artifact) -> list[str]:
    """Which signature an artifact has, where the manifest has several."""
    return [f"signature {item.signature}"] if len(value.signatures) > 1 else []


def _notes(item: Artifact) -> list[str]:
    notes = [f"{dim}={count} fixed" for dim, count in item.fixed_dims.items()]
    if item.channel_last:
        notes.append(f"channel-last: {', '.join(item.channel_last)}")
    figures = item.quantization
    if figures is not None:
        notes.append(f"{figures.scheme}, {figures.size_ratio:.2f} x size")
        if figures.reference_metric is not None and figures.candidate_metric is not None:
            notes.append(
                f"{figures.metric} {figures.reference_metric:.4f} to {figures.candidate_metric:.4f}"
            )
    if item.parity.verdict is not Verdict.PASSED:
        notes.append(item.parity.reason)
    return notes


def _heading(console: Console, value: Manifest) -> None:
    source = value.source
    console.print(f"{value.name} {value.version}, from {source.file} ({source.framework})")
    for signature in value.signatures:
        _signature(console, signature)


def _signature(console: Console, signature: Signature) -> None:
    console.print(f"{signature.name}:")
    for kind, side in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in side:
            console.print(f"  {kind:6} {spec}{_meaning(spec)}")


def _meaning(spec: TensorSpec) -> str:
    parts = [str(spec.meaning)] if spec.meaning else []
    for what, names in (("classes", spec.classes), ("columns", spec.columns)):
        if names:
            shown = ", ".join(map(str, names[:_MANY]))
            more = f", ... {len(names)} in all" if len(names) > _MANY else ""
            parts.append(f"{what}: {shown}{more}")
    return f"   ({'; '.join(parts)})" if parts else ""


def _description(console: Console, value: Description) -> None:
    _signature(console, value.signature)
    for other in value.other_signatures:
        _signature(console, other)
    facts = {
        "precision": value.precision,
        "parameters": "" if value.parameters is None else f"{value.parameters:,}",
        "opset": ", ".join(f"{name} {version}" for name, version in value.opset.items()),
        "producer": value.producer,
        "ops": _counted(value.ops),
    }
    for name, fact in facts.items():
        if fact:
            console.print(f"{name}: {fact}")


def _counted(ops: dict[str, int]) -> str:
    ranked = sorted(ops.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} x{count}" for name, count in ranked[:_MANY])
    more = f", ... {len(ranked)} kinds in all" if len(ranked) > _MANY else ""
    return shown + more


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table

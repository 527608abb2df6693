"""What came out of the planted bugs, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.planted.trial import PEERS, SOUND, SOUND_8_BITS, Truth

_FAILED, _INCONCLUSIVE = "failed", "inconclusive"


def table(work: Path) -> str:
    """Bugs by kind and by format, and what sound models are told."""
    planted = _planted(_read(work, "planted"))
    sound = _read(work, "alarms")
    parts = []
    if planted:
        models = len({item["model"] for item in planted})
        parts.append(f"{len(planted)} mutants of {models} models.\n\n" + _bugs(planted, _kind))
        parts.append(_bugs(planted, lambda item: f"{item['framework']}, {item['format']}"))
        parts.append(_listed("Missed", missed(planted)))
    if sound:
        parts.append(_sound(sound))
        parts.append(_listed("False alarms", alarms(sound)))
    return "\n\n".join(parts)


def _read(work: Path, name: str) -> list[dict[str, Any]]:
    found = []
    for path in sorted(work.glob(f"*/{name}.json")):
        model = path.parent.name
        for item in json.loads(path.read_text()):
            found.append({"model": model, "framework": model.partition("_")[0], **item})
    return found


def _planted(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The bugs, and whether each matters beside the sound artifacts that came before it.

    A changed ONNX model becomes a SavedModel by another route than a Keras model does, so that
    the least exact of the sound artifacts counts.
    """
    sound: dict[tuple[str, str], Truth] = {}
    found = []
    for item in items:
        true, form = Truth(**item["truth"]), item["format"]
        if item["kind"] == SOUND:
            place = (item["model"], "")
            sound[place] = max(true, sound.get(place, Truth()), key=lambda truth: truth.ratio)
        elif item["kind"] == SOUND_8_BITS:
            sound[item["model"], form] = true
        else:
            eight = sound.get((item["model"], form))
            beside = eight or sound[item["model"], ""]
            found.append({**item, "matters": true.matters(beside)})
    return found


def _kind(item: dict[str, Any]) -> str:
    kind: str = item["kind"]
    return kind


def missed(planted: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Bugs that matter and that modelpack lets pass, or leaves open."""
    for item in planted:
        if item["matters"] and item["said"]["verdict"] != _FAILED:
            true, words = item["truth"], item["said"]
            yield (
                f"{item['model']}, {item['format']}: {item['kind']}: truly "
                f"{true['ratio']:.3g} times the noise, {true['flips']} flips{true['failure']}; "
                f"{words['verdict']} at {words['ratio']:.3g}"
            )


def alarms(sound: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Sound models that modelpack lets fail."""
    for item in sound:
        words = item["said"]
        if words["verdict"] == _FAILED:
            yield (
                f"{item['model']}, {item['format']}, seed {item['seed']}, threads "
                f"{item['threads']}: {words['ratio']:.3g} times the noise: {words['reason']}"
            )


def _listed(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"{title}:", "", *(f"- {line}" for line in lines)])


def _bugs(planted: Sequence[dict[str, Any]], group: Callable[[dict[str, Any]], str]) -> str:
    head = ["bug", "mutants", "matter", "modelpack", "inconclusive", *PEERS]
    names = list(dict.fromkeys(group(item) for item in planted))
    rows = [_bug_row(name, [item for item in planted if group(item) == name]) for name in names]
    return _markdown([head, *rows, _bug_row("**all**", planted)])


def _bug_row(name: str, items: Sequence[dict[str, Any]]) -> list[str]:
    matter = [item for item in items if item["matters"]]
    verdicts = [item["said"]["verdict"] for item in matter]
    caught = [verdicts.count(_FAILED), verdicts.count(_INCONCLUSIVE)]
    peers = [sum(rule in item["said"]["peers"] for item in matter) for rule in PEERS]
    shares = [_share(count, len(matter)) for count in (*caught, *peers)]
    return [name, str(len(items)), str(len(matter)), *shares]


def _share(count: int, total: int) -> str:
    if count == total:
        return str(count)
    return f"{count} ({100 * count / total:.1f} %)"


def _sound(sound: Sequence[dict[str, Any]]) -> str:
    head = ["sound artifacts", "judged", "failed", "inconclusive", "error / noise: max", "99 %"]
    names = sorted({(item["framework"], item["format"]) for item in sound})
    rows = []
    for name in names:
        items = [item for item in sound if (item["framework"], item["format"]) == name]
        rows.append(_sound_row(", ".join(name), items))
    return _markdown([[*head, *PEERS], *rows, _sound_row("**all**", sound)])


def _sound_row(name: str, items: Sequence[dict[str, Any]]) -> list[str]:
    said = [item["said"] for item in items]
    verdicts = [words["verdict"] for words in said]
    ratios = [words["ratio"] for words in said]
    counts = [verdicts.count(_FAILED), verdicts.count(_INCONCLUSIVE)]
    spread = [f"{max(ratios):.2f}", f"{np.percentile(ratios, 99):.2f}"]
    peers = [str(sum(rule in words["peers"] for words in said)) for rule in PEERS]
    return [name, str(len(items)), *map(str, counts), *spread, *peers]


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in ruled)

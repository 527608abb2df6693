"""Runs the routes of a conversion, step by step, in a scratch directory."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelpack.artifact import SCHEMES, Step
from modelpack.errors import ConversionError, InputError
from modelpack.routes import Converter, Route, formats
from modelpack.sources import Opened, joined, run_joint_step, run_step
from modelpack.steps import StepOptions
from modelpack.store import golden_name, label, labelled, single_format
from modelpack.worker import WorkerPool

log = logging.getLogger(__name__)

# Of the 255 bytes of a file name; the rest is for formats, schemes and weights beside the file.
_LONGEST_LABEL = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where what is made of one signature goes to.

    Attributes:
        output: the directory or file that the user named.
        label: of the signature, in file names; empty for the first one.
    """

    output: Path
    label: str = ""

    def file_name(self, form: str, *, last: bool = True) -> str:
        """The file name of an artifact, or of what a route makes before its ``last`` step."""
        if last and single_format(self.output):
            return self.output.name
        return self._labelled(formats()[form].artifact)

    @property
    def golden_name(self) -> str:
        """The file name of the golden samples."""
        return self._labelled(golden_name(self.output))

    def _labelled(self, name: str) -> str:
        return labelled(name, self.label) if self.label else name


def places(output: Path, signatures: list[str]) -> list[Place]:
    """A place for each signature: the first has the usual names, the others' tell which they are.

    Raises:
        InputError: the output is one file of a format that has one signature a file, or names
            of signatures do not differ as files, or are too long for them.
    """
    form = single_format(output)
    if len(signatures) > 1 and form and not formats()[form].joiner:
        raise InputError(
            f"'{output}' is one file, but {len(signatures)} signatures become one each: "
            + ", ".join(signatures),
            hint="give a directory",
        )
    labels = [label(name) for name in signatures[1:]]
    unfit = [name for name in signatures[1:] if not 0 < len(name) <= _LONGEST_LABEL]
    if unfit:
        raise InputError(
            f"no file name can hold a signature's name of {len(unfit[0])} characters: "
            f"'{unfit[0][:40]}'",
            hint="convert it alone, to a file: --signature NAME with -o FILE",
        )
    folded = [mark.lower() for mark in labels]
    for mark in labels:
        if folded.count(mark.lower()) > 1 or mark in SCHEMES:
            raise InputError(
                f"the artifacts of a signature would be called '{mark}', as others are",
                hint="convert it alone, to another directory: --signature NAME",
            )
    return [Place(output, mark) for mark in ("", *labels)]


@dataclass(frozen=True, slots=True)
class Product:
    """A converted model in the scratch directory.

    Attributes:
        opened: the model.
        steps: what made it.
        fixed_dims: dynamic dimensions that a step gave one size.
    """

    opened: Opened
    steps: tuple[Step, ...]
    fixed_dims: Mapping[str, int]


class Builder:
    """Runs routes, running each step that several routes share once."""

    def __init__(
        self, pool: WorkerPool, source: Opened, place: Place, options: StepOptions
    ) -> None:
        self._pool = pool
        self._place = place
        self._options = options
        self._done: dict[tuple[Converter, ...], Product] = {}
        self._source = Product(source, (), {})

    def build(self, route: Route) -> Product:
        """Run what is left to run of a route."""
        product = self._source
        for index, step in enumerate(route.steps):
            key = route.steps[: index + 1]
            if key not in self._done:
                # Files that belong together name each other, so the name is final from the start.
                last = step is route.steps[-1]
                name = self._place.file_name(step.target, last=last)
                self._done[key] = self._run(step, product, name)
            product = self._done[key]
        return product

    def _run(self, step: Converter, before: Product, name: str) -> Product:
        log.info("converting %s to %s", step.source, step.target)
        folder = Path(tempfile.mkdtemp(dir=self._pool.scratch))
        result, made = run_step(
            self._pool,
            step.entry,
            before.opened.ref,
            folder / name,
            self._options,
            form=formats()[step.target],
            extra=step.extra,
            failure=ConversionError,
        )
        record = Step(step.entry, result.tools, result.options)
        fixed = {**before.fixed_dims, **result.fixed_dims}
        return Product(made, (*before.steps, record), fixed)


def in_one_step(
    pool: WorkerPool,
    products: Sequence[Product],
    step: Converter,
    name: str,
    options: StepOptions,
) -> list[Product]:
    """Make one artifact of models of one signature each, and open each signature of it.

    Args:
        pool: the workers.
        products: what the step reads.
        step: has a joint entry.
        name: of the artifact.
        options: of the step.
    """
    log.info("converting %d signatures of %s to %s", len(products), step.source, step.target)
    target = Path(tempfile.mkdtemp(dir=pool.scratch)) / name
    made = run_joint_step(pool, step, [item.opened.ref for item in products], target, options)
    return [
        Product(
            opened,
            (*item.steps, Step(step.joint, result.tools, result.options)),
            {**item.fixed_dims, **result.fixed_dims},
        )
        for item, (result, opened) in zip(products, made, strict=True)
    ]


def in_one_file(pool: WorkerPool, products: Sequence[Product], name: str) -> list[Product]:
    """Put models of one signature each into one file, and open each signature of it.

    Args:
        pool: the workers.
        products: of one format, which has a joiner.
        name: of the file.
    """
    form = formats()[products[0].opened.ref.format]
    log.info("joining %d signatures", len(products))
    target = Path(tempfile.mkdtemp(dir=pool.scratch)) / name
    result, opened = joined(pool, form, [item.opened.ref for item in products], target)
    record = Step(form.joiner, result.tools, result.options)
    return [
        Product(made, (*item.steps, record), item.fixed_dims)
        for item, made in zip(products, opened, strict=True)
    ]

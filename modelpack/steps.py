"""What an adapter reports to the verbs: descriptions, results of steps and of runs.

These values cross a process boundary as JSON, so they hold plain data only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from modelpack.errors import InputError
from modelpack.signature import Signature


@dataclass(frozen=True, slots=True)
class Range:
    """Values an input usually takes, for generating samples.

    Attributes:
        low: smallest value, for every element or one per column.
        high: largest value, likewise. Integers are drawn from low to high, both included.
        values: the categories of a string input; empty for numbers.
        smooth: neighbours along all axes but the first and the last are alike, as in images.
    """

    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    smooth: bool = False


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of a model without running it.

    Attributes:
        signature: names, dtypes and shapes, with what the user asked for applied.
        framework: keras, torch, sklearn, tensorflow or onnx, as the manifest names the source.
        versions: library versions that loaded it, by distribution name.
        saved_by: versions that saved the file, where others loaded it, likewise.
        ops: how often each op, layer or pipeline step occurs.
        parameters: number of weights; None when not counted.
        precision: dtype of most weights.
        opset: op set versions by domain.
        bindings: the model's own tensor name for each signature name.
        producer: what wrote the file, when it says so.
        ranges: usual values by input name.
        rare_rows: rows of values by input name, which reach parts of the model that usual
            values seldom reach.
        dim_bounds: smallest and largest size of dynamic dims that are limited.
        accepts_nan: whether the model takes NaN as "missing" in its float inputs.
        computes_in_float64: whether the source itself computes in float64, so that float32
            inputs of its artifacts may lose digits that it sees.
        computes_in: the coarsest dtype that it computes in, if that is coarser than its
            weights: float16 or bfloat16 under mixed precision.
        fingerprint: digest of the weights, for a source that is code and not a file.
        sidecars: names of further files beside the model file that belong to it.
        other_signatures: further callables the model has.
        unrunnable: why nothing that is installed here can run it; empty if something can.
        finite_only: whether only finite numbers can be exchanged with it, as JSON has them.
        shares: outputs that are shares of 1 which its runtime's kernel gives no more digits of.
    """

    signature: Signature
    framework: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    saved_by: dict[str, str] = field(default_factory=dict)
    ops: dict[str, int] = field(default_factory=dict)
    parameters: int | None = None
    precision: str = "float32"
    opset: dict[str, int] = field(default_factory=dict)
    bindings: dict[str, str] = field(default_factory=dict)
    producer: str = ""
    ranges: dict[str, Range] = field(default_factory=dict)
    rare_rows: dict[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    dim_bounds: dict[str, tuple[int, int]] = field(default_factory=dict)
    accepts_nan: bool = False
    computes_in_float64: bool = False
    computes_in: str = ""
    fingerprint: str = ""
    sidecars: tuple[str, ...] = ()
    other_signatures: tuple[Signature, ...] = ()
    unrunnable: str = ""
    finite_only: bool = False
    shares: tuple[str, ...] = ()

    @property
    def arithmetic(self) -> str:
        """The dtype whose rounding its answers have."""
        return self.computes_in or self.precision

    @property
    def is_large(self) -> bool:
        """Whether running it takes so long that it is run no more often than it must be."""
        return (self.parameters or 0) >= _LARGE


# Weights from which on a model is large.
_LARGE = 1_000_000


@dataclass(frozen=True, slots=True)
class StepOptions:
    """What a conversion step may be told.

    Attributes:
        opset: wanted ONNX opset; None for the converter's own choice.
        name: the model's name, for formats that carry one.
        input_layout: ``nhwc`` for images channel-last, where the source has channels
            second; empty to keep the source's order.
        select_ops: allow TFLite files that need TensorFlow's own kernels.
    """

    opset: int | None = None
    name: str = "model"
    input_layout: str = ""
    select_ops: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a conversion step did.

    Attributes:
        tools: versions of the libraries that did the work.
        options: settings worth recording.
        fixed_dims: dynamic dimensions that had to be given one size.
        notes: sentences for the user, such as why a dimension was fixed.
        channel_last: inputs and outputs that became channel-last.
    """

    tools: dict[str, str] = field(default_factory=dict)
    options: dict[str, str | int | float | bool] = field(default_factory=dict)
    fixed_dims: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    channel_last: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Calibration:
    """Typical inputs of one signature of a file: an ``.npz`` of cases; empty when not needed."""

    signature: Signature
    cases: str


@dataclass(frozen=True, slots=True)
class QuantizeRequest:
    """What to quantize to.

    Attributes:
        scheme: one of `modelpack.artifact.SCHEMES`.
        calibration: an ``.npz`` of typical cases; empty when not needed.
        others: likewise of the further signatures of a file that has several, all of which are
            quantized.
    """

    scheme: str
    calibration: str = ""
    others: tuple[Calibration, ...] = ()


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a model is run. None of it may change the answers by more than rounding.

    Attributes:
        repeat: further calls on the first case, to time them.
        threads: for the runtime's kernels. One, so that answers repeat bit by bit.
        nudge: when not zero, the seed of a change of the weights by one unit in the last
            place (see `modelpack.judging.noise.nudged`).
        wide: compute in float64.
        runtime: another runtime than the format's usual one, by a name its adapter knows.
    """

    repeat: int = 0
    threads: int = 1
    nudge: int = 0
    wide: bool = False
    runtime: str = ""

    def refuse(self, *names: str) -> None:
        """Refuse options that an adapter does not have.

        Raises:
            InputError: one of the named options is not at its default.
        """
        usual = RunOptions()
        asked = [name for name in names if getattr(self, name) != getattr(usual, name)]
        if asked:
            raise InputError(f"this model cannot be run with another {' or '.join(asked)}")


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run went.

    Attributes:
        runtime: name and version of what ran the model.
        latency: wall times of the repeated calls, in milliseconds; empty without repeats.
    """

    runtime: str
    latency: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What a check of a model's structure may use.

    Attributes:
        feeds: an ``.npz`` of cases to call the model with; empty for none.
        floors: likewise the noise floor of each output, for each feed; empty if not known.
        repeats: calls with the first feed, whose answers must be the same.
        threads: how many call the model at the same time, each with every feed.
    """

    feeds: str = ""
    floors: str = ""
    repeats: int = 5
    threads: int = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of a model's structure found.

    Attributes:
        name: of the check.
        ok: whether the model holds it.
        detail: what was seen; what is wrong, if it does not hold.
    """

    name: str
    ok: bool
    detail: str = ""


def timed(call: Callable[[], object], repeat: int) -> tuple[float, ...]:
    """Call ``repeat`` times; return the wall time of each call in milliseconds."""
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    return tuple(times)

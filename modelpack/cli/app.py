"""The commands. Each one parses its options, calls one verb, and renders what it returns."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from modelpack.cli import terminal
from modelpack.cli.options import (
    Artifact,
    Bench,
    Bisect,
    Data,
    Debug,
    FactoryArgs,
    Imports,
    InputForm,
    Inputs,
    Json,
    Junit,
    MemoryLimit,
    Model,
    Output,
    Outputs,
    Quiet,
    Report,
    Seed,
    SignatureName,
    Signatures,
    Strict,
    Timeout,
    To,
    Trust,
    Verbose,
    VersionDrift,
    Weights,
    is_strict,
    limits,
    specs,
)
from modelpack.cli.terminal import Manner
from modelpack.errors import InputError, ModelpackError, ParityError

# The base of Typer's usage errors (MissingParameter, NoSuchOption, BadParameter, ...). Typer
# carries its own copy of click in some versions and depends on click in others.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="modelpack",
    help="Turn Keras, PyTorch and scikit-learn models into checked ONNX, TFLite and "
    "SavedModel artifacts.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code."""
    terminal.stop_on_sigterm()
    terminal.tolerate_encodings()
    try:
        code = app(arguments or ["--help"], prog_name="modelpack", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except _UsageError as error:
        return terminal.usage_error(error, as_json="--json" in arguments)
    except (KeyboardInterrupt, typer.Abort):
        terminal.stderr().print("interrupted")
        return terminal.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does: nothing is left to say.
        _drop_stdout()
        return 0
    except OSError as error:
        _drop_stdout()
        problem = InputError(f"cannot write to standard output: {error.strerror}")
        return terminal.report_error(problem, Manner())


def _drop_stdout() -> None:
    """Send what is still buffered nowhere, or Python would fail again on it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _command(manner: Manner) -> Iterator[None]:
    """Turn errors into messages and exit codes."""
    try:
        yield
    except ModelpackError as error:
        raise typer.Exit(terminal.report_error(error, manner)) from None
    except (typer.Exit, OSError):
        raise
    except Exception as error:
        if manner.debug:
            raise
        raise typer.Exit(terminal.report_bug(error, manner)) from None


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"modelpack {version('modelpack-cli')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Turn Keras, PyTorch and scikit-learn models into checked artifacts."""


Name = Annotated[str, typer.Option("--name", help="The model's name; the source's by default.")]
ModelVersion = Annotated[
    str,
    typer.Option("--model-version", help="The model's version, for the manifest; 1 by default."),
]
Opset = Annotated[
    int | None, typer.Option("--opset", help="ONNX opset; the converter's usual by default.")
]
InputLayout = Annotated[
    str,
    typer.Option(
        "--input-layout",
        metavar="LAYOUT",
        help="nhwc: images channel-last, in TFLite and SavedModel made from channel-first models.",
    ),
]
SelectOps = Annotated[
    bool,
    typer.Option("--select-ops", help="Allow TFLite files that need TensorFlow's own kernels."),
]
Rtol = Annotated[
    float | None, typer.Option("--rtol", min=0, help="Relative tolerance of the comparison.")
]
Atol = Annotated[
    float | None,
    typer.Option("--atol", min=0, help="Absolute tolerance, in units of the output's scale."),
]
NoValidate = Annotated[
    bool,
    typer.Option("--no-validate", help="Skip the comparison; artifacts are marked unverified."),
]
KeepFailed = Annotated[
    bool, typer.Option("--keep-failed", help="Write the result even if a check failed.")
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Print the routes that would run, and run nothing.")
]
Metric = Annotated[
    str, typer.Option("--metric", help="accuracy, f1, auc, mae or r2; by default as labels say.")
]


def _convert(
    context: typer.Context,
    model: Model,
    output: Output,
    to: To = None,
    inputs: Inputs = None,
    outputs: Outputs = None,
    weights: Weights = None,
    factory_args: FactoryArgs = "",
    imports: Imports = None,
    trust: Trust = False,
    allow_version_drift: VersionDrift = False,
    input_form: InputForm = "",
    signatures: Signatures = None,
    data: Data = None,
    name: Name = "",
    model_version: ModelVersion = "",
    opset: Opset = None,
    input_layout: InputLayout = "",
    select_ops: SelectOps = False,
    rtol: Rtol = None,
    atol: Atol = None,
    seed: Seed = 0,
    no_validate: NoValidate = False,
    keep_failed: KeepFailed = False,
    explain: Explain = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
    timeout: Timeout = None,
    memory_limit: MemoryLimit = "",
) -> None:
    manner = Manner(as_json, quiet, verbose, debug)
    with _command(manner):
        from modelpack.cli import render
        from modelpack.cli.progress import speaking
        from modelpack.verbs import convert as verbs

        options = verbs.ConvertOptions(
            to=tuple(to or ()),
            inputs=specs(inputs),
            outputs=tuple(outputs or ()),
            weights=weights,
            factory_args=factory_args,
            imports=tuple(imports or ()),
            trust=trust,
            allow_version_drift=allow_version_drift,
            input_form=input_form,
            signatures=tuple(signatures or ()),
            data=data,
            name=name,
            version=model_version,
            opset=opset,
            input_layout=input_layout,
            select_ops=select_ops,
            rtol=rtol,
            atol=atol,
            seed=seed,
            validate=not no_validate,
            keep_failed=keep_failed,
            limits=limits(timeout, memory_limit),
        )
        if explain:
            render.routes(verbs.plan(model, output, options), manner)
            return
        verb = verbs.export if context.info_name == "export" else verbs.convert
        with speaking(manner):
            manifest = verb(model, output, options)
        render.manifest(manifest, manner, output)


app.command("export", help="Take a Keras, PyTorch or scikit-learn model out of its framework.")(
    _convert
)
app.command("convert", help="Convert a model to other formats and check each against it.")(_convert)


@app.command()
def quantize(
    model: Artifact,
    output: Output,
    scheme: Annotated[str, typer.Option("--scheme", help="dynamic-int8, static-int8 or float16.")],
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="FORMAT", help="onnx or tflite, of a directory; repeatable."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", metavar="DATA", help="Typical inputs, for static-int8."),
    ] = None,
    data: Data = None,
    metric: Metric = "",
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", help="Largest accepted loss, in units of the metric."),
    ] = None,
    seed: Seed = 0,
    keep_failed: KeepFailed = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
    timeout: Timeout = None,
    memory_limit: MemoryLimit = "",
) -> None:
    """Quantize ONNX and TFLite artifacts, and measure what it cost."""
    manner = Manner(as_json, quiet, verbose, debug)
    with _command(manner):
        from modelpack.cli import render
        from modelpack.cli.progress import speaking
        from modelpack.verbs import quantize as verbs

        options = verbs.QuantizeOptions(
            scheme=scheme,
            to=tuple(to or ()),
            calibration=calibration,
            data=data,
            metric=metric,
            max_drop=max_drop,
            seed=seed,
            keep_failed=keep_failed,
            limits=limits(timeout, memory_limit),
        )
        with speaking(manner):
            manifest = verbs.quantize(model, output, options)
        render.manifest(manifest, manner, output)


@app.command()
def validate(
    model: Model,
    reference: Annotated[
        str, typer.Option("--reference", metavar="MODEL", help="What to compare with.")
    ] = "",
    data: Data = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="SPEC", help="An input of the reference, as for convert."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="State dict of the reference."),
    ] = None,
    factory_args: FactoryArgs = "",
    imports: Imports = None,
    runtime: Annotated[
        str, typer.Option("--runtime", metavar="NAME", help="What runs MODEL; see the reference.")
    ] = "",
    reference_runtime: Annotated[
        str, typer.Option("--reference-runtime", metavar="NAME", help="What runs the reference.")
    ] = "",
    trust: Trust = False,
    allow_version_drift: VersionDrift = False,
    input_form: InputForm = "",
    signature_name: SignatureName = "",
    metric: Metric = "",
    rtol: Rtol = None,
    atol: Atol = None,
    seed: Seed = 0,
    bench: Bench = False,
    bisect: Bisect = None,
    report: Report = None,
    junit: Junit = None,
    strict: Strict = None,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
    timeout: Timeout = None,
    memory_limit: MemoryLimit = "",
) -> None:
    """Check an artifact, a modelpack directory or a package: integrity, structure, numbers."""
    manner = Manner(as_json, quiet, verbose, debug)
    with _command(manner):
        from modelpack.cli import render
        from modelpack.cli.progress import speaking
        from modelpack.verbs import validate as verbs

        options = verbs.ValidateOptions(
            reference=reference,
            weights=weights,
            factory_args=factory_args,
            imports=tuple(imports or ()),
            runtime=runtime,
            reference_runtime=reference_runtime,
            trust=trust,
            allow_version_drift=allow_version_drift,
            input_form=input_form,
            signature_name=signature_name,
            inputs=specs(inputs),
            data=data,
            metric=metric,
            rtol=rtol,
            atol=atol,
            seed=seed,
            bench=bench,
            bisect=bisect,
            report=report,
            junit=junit,
            limits=limits(timeout, memory_limit),
        )
        with speaking(manner):
            found = verbs.validate(model, options)
        render.validation(found, manner)
        if found.failed or (found.inconclusive and is_strict(strict)):
            raise typer.Exit(ParityError.exit_code)


@app.command()
def package(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A modelpack directory.")],
    output: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="OUT", help="For archive alone the .tar file; else a directory."
        ),
    ],
    layout: Annotated[
        list[str] | None,
        typer.Option("--layout", help="archive, tfserving or triton; at least one, repeatable."),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="The model's name on the server.")] = "",
    model_version: Annotated[
        str, typer.Option("--model-version", help="The model's version on the server.")
    ] = "",
    max_batch_size: Annotated[
        int, typer.Option("--max-batch-size", min=0, help="Let Triton batch up to this size.")
    ] = 0,
    artifact: Annotated[
        str,
        typer.Option(
            "--artifact",
            help="Path of the artifact to serve, in the manifest, or PATH:SIGNATURE.",
        ),
    ] = "",
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Package artifacts that failed parity too.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
    timeout: Timeout = None,
    memory_limit: MemoryLimit = "",
) -> None:
    """Lay a modelpack directory out for a server, or archive it."""
    manner = Manner(as_json, quiet, verbose, debug)
    with _command(manner):
        from modelpack.cli import render
        from modelpack.cli.progress import speaking
        from modelpack.verbs import package as verbs

        limits(timeout, memory_limit)
        options = verbs.PackageOptions(
            layouts=tuple(layout or ()),
            name=name,
            version=model_version,
            max_batch_size=max_batch_size,
            artifact=artifact,
            allow_failed=allow_failed,
        )
        with speaking(manner):
            written = verbs.package(directory, output, options)
        render.written(written, manner)


@app.command()
def inspect(
    model: Model,
    inputs: Inputs = None,
    weights: Weights = None,
    factory_args: FactoryArgs = "",
    imports: Imports = None,
    trust: Trust = False,
    allow_version_drift: VersionDrift = False,
    input_form: InputForm = "",
    signature_name: SignatureName = "",
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
    timeout: Timeout = None,
    memory_limit: MemoryLimit = "",
) -> None:
    """Show signature, ops, size, precision and provenance of any supported model."""
    manner = Manner(as_json, quiet, verbose, debug)
    with _command(manner):
        from modelpack.cli import render
        from modelpack.cli.progress import speaking
        from modelpack.sources import Request
        from modelpack.verbs import inspect as verbs

        request = Request(
            model,
            weights,
            trust,
            specs(inputs),
            factory_args=factory_args,
            imports=tuple(imports or ()),
            allow_version_drift=allow_version_drift,
            input_form=input_form,
            signature_name=signature_name,
        )
        with speaking(manner):
            found = verbs.inspect(request, limits(timeout, memory_limit))
        render.inspection(found, manner)


@app.command()
def doctor(
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    debug: Debug = False,
    timeout: Timeout = None,
    memory_limit: MemoryLimit = "",
) -> None:
    """Show what is installed, which routes work here, and what to install for the others."""
    manner = Manner(as_json, quiet, verbose, debug)
    with _command(manner):
        from modelpack.cli import render
        from modelpack.verbs import doctor as verbs

        limits(timeout, memory_limit)
        render.diagnosis(verbs.doctor(), manner)

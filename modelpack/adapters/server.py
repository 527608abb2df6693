"""A running model server: described and called over HTTP, by the address of a model in it.

``http://HOST:PORT/v2/models/NAME`` speaks the Open Inference Protocol (Triton, KServe,
MLServer, OpenVINO Model Server), ``http://HOST:PORT/v1/models/NAME`` TensorFlow Serving's REST.
"""

from __future__ import annotations

from pathlib import Path

from modelpack.adapters import checking
from modelpack.adapters.server_http import Client
from modelpack.adapters.server_protocols import ModelServer, model_at
from modelpack.artifact import ModelRef
from modelpack.samples import Case, read_cases, write_cases
from modelpack.signature import Signature, bound_names, requested
from modelpack.steps import CheckRequest, Description, Finding, RunOptions, RunResult, timed


def describe(ref: ModelRef) -> Description:
    """Describe the model as its server does.

    Raises:
        InputError: the server cannot be reached, has no such model, or does not say what
            goes in and what comes out.
    """
    model = _model(ref)
    native = model.signature()
    signature = requested(native, ref.inputs, ref.outputs) if ref.signature is None else native
    return Description(signature=signature, framework="server", finite_only=model.finite_only)


def run(ref: ModelRef, cases: str, outputs: str, options: RunOptions) -> RunResult:
    """Ask the server for the outputs of each case.

    Raises:
        InputError: the server refuses a case, or cannot be reached.
        WorkerError: it takes too long.
    """
    options.refuse("threads", "nudge", "wide", "runtime")
    model = _model(ref)
    native = model.signature()
    call = _calling(model, native, ref.signature or native)
    feeds = read_cases(Path(cases), (ref.signature or native).inputs)
    write_cases(Path(outputs), [call(feed) for feed in feeds])
    return RunResult(model.title(), timed(lambda: call(feeds[0]), options.repeat))


def check(ref: ModelRef, request: CheckRequest) -> list[Finding]:
    """Ask whether the model is ready, then call it repeatedly, from threads too.

    Each thread has a connection of its own.
    """
    model = _model(ref)
    problem = model.not_ready()
    found = [Finding("ready", not problem, problem or model.title())]
    if problem:
        return found
    native = model.signature()
    signature = ref.signature or native
    call = _calling(model, native, signature)

    def another() -> checking.Call:
        return _calling(_model(ref), native, signature)

    return [*found, *checking.called(signature, request, call, another)]


def _model(ref: ModelRef) -> ModelServer:
    return model_at(Client(ref.location))


def _calling(model: ModelServer, native: Signature, signature: Signature) -> checking.Call:
    """A function of feeds and answers by the names of ``signature``."""
    inputs = bound_names(signature.inputs, native.inputs)
    outputs = bound_names(signature.outputs, native.outputs)

    def call(case: Case) -> Case:
        answer = model.call({inputs[name]: array for name, array in case.items()}, native)
        return {name: answer[own] for name, own in outputs.items()}

    return call

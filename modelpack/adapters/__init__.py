"""Adapters: one module per framework or format, each importing its own library.

An adapter module offers, as far as the format allows:

``describe(ref: ModelRef) -> Description``
    the signature (with the user's names and dims applied by `signature.requested`) and
    facts about the model, without running it on data.
``run(ref: ModelRef, cases: str, outputs: str, repeat: int) -> RunResult``
    feeds each case of the ``.npz`` file ``cases`` (names as in ``ref.signature.inputs``)
    and writes the results to ``outputs`` (names as in ``ref.signature.outputs``). With
    ``repeat`` above 0 the first case is run that many times more, for the latency.
``to_<format>(source: ModelRef, target: str, options: StepOptions) -> StepResult``
    one conversion; the result has the names, dtypes and dims of ``source.signature``.
``quantize(source: ModelRef, target: str, request: QuantizeRequest) -> StepResult``
``scan(ref: ModelRef) -> list[str]``
    for formats whose loading can run code: what in the file can, without loading it;
    empty when loading is safe.

A module of the same name with ``_trace`` behind it looks inside of a model:

``trace(ref: ModelRef, cases: str, target: str) -> list[Probe]``
    runs the first case and writes every tensor on the way (see `modelpack.bisection.traces`).
``replay(ref: ModelRef, cases: str, given: str, outputs: str) -> None``
    runs it with some of those tensors given instead of computed; of artifact formats only.
``cut(ref: ModelRef, given: str, wanted: str, target: str) -> None``
    writes the piece that computes one tensor from given ones; likewise.

All are called in worker processes, by entry string, never imported by the verbs. Positions
in ``ref.signature`` correspond to the model's own inputs and outputs, which is how renamed
tensors are bound. Adapters import the core and their own framework, never each other, and
raise the typed errors of `modelpack.errors` for what they refuse.
"""

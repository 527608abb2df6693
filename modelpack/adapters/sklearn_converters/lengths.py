"""Rows by their length."""

from __future__ import annotations

from modelpack.adapters.sklearn_converters.writer import Writer


def normalizer(w: Writer) -> None:
    """Each row over its length; the one that ONNX has takes the largest value with its sign."""
    rows = w.rows()
    size = w.op("Abs", rows)
    if w.item.norm == "l2":
        length = w.op("Sqrt", w.summed(w.op("Mul", rows, rows)))
    else:
        length = w.summed(size) if w.item.norm == "l1" else w.reduced("ReduceMax", size)
    none = w.op("Equal", length, w.constant(0.0))
    w.finish(w.op("Div", rows, w.op("Where", none, w.constant(1.0), length)))

"""Lowering: an ONNX graph as native TensorFlow ops.

The way of a model:

    model.py      prepares a model (inlining, check of its ops) and makes a module of it
    functions.py  ops that ONNX defines as functions of others: the bodies in their place
    patterns/     groups of nodes that exporters write for one op, put back together
    graph.py      evaluates a graph node by node, by the op table
    registry.py   the op table: (domain, op type, since-version) -> function
    coverage.py   the page of docs/ that lists it
    ops/          the lowerings, by family of ops

What flows, and what lowerings are made with:

    value.py      constants, tensors, and the order their axes are held in
    context.py    what a lowering may know of its node and target
    known.py      what is known of shapes with dynamic sizes
    sizes.py      building shapes, static wherever they can be
    layout.py     who keeps the order of axes, who changes it
    regrouping.py reshapes that keep it
    windows.py    sliding windows and their padding
    loops.py      loops over time, as each target can have them
    indices.py    indices as ONNX means them
    dtypes.py     computing in a dtype that a kernel knows
    moving.py     the same for ops that only move elements
    ranking.py    the same for ops that compare
    precise.py    functions that TFLite lacks, without losing precision
"""

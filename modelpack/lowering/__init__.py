"""Lowering: an ONNX graph as native TensorFlow ops.

registry.py   the op table: (domain, op type, since-version) -> function
value.py      what flows through the graph: constants, tensors, orders of axes
layout.py     the order of axes: who keeps it, who changes it
known.py      what is known of shapes with dynamic sizes
sizes.py      building shapes, static wherever they can be
context.py    what a lowering may know of its node and target
graph.py      evaluates a graph node by node
model.py      prepares a model (inlining, check of its ops) and makes a module of it
ops/          the lowerings, by family of ops
"""

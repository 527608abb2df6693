"""Converters to ONNX of estimators that skl2onnx does not know, or gets wrong.

Each is a function of a `writer.Writer`, which holds the fitted estimator and appends nodes;
`registering` lists them.
"""

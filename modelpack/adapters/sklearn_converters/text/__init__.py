"""Text vectorizers, as the ONNX nodes that answer what scikit-learn answers for any text.

A text is taken apart into its characters, these are replaced as scikit-learn's lower case and
stripping of accents would replace them, put together again, and cut into tokens by a regular
expression that lists its characters. All tables are those of the Python that converts: no
locale and no Unicode version of a runtime has a part in it.
"""

"""TensorFlow without Keras, which takes half of the time and a quarter of the memory of both.

TensorFlow imports Keras' optimizers, and with them all of Keras and what Keras finds beside it
(scikit-learn, pandas, Matplotlib), for nothing that a SavedModel needs. Whoever needs Keras
imports it, before or after this module.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

_KERAS = "keras"


def _import_tensorflow() -> Any:
    """Import TensorFlow while Keras is a module without submodules, whose lack it bears."""
    spec = importlib.util.find_spec(_KERAS)
    hides = spec is not None and not {_KERAS, "tensorflow"} & set(sys.modules)
    if hides:
        # TensorFlow asks for the file of Keras too, for the path of `tensorflow.keras`.
        stub = ModuleType(_KERAS)
        stub.__spec__ = spec
        sys.modules[_KERAS] = stub
    try:
        import tensorflow
    finally:
        if hides:
            del sys.modules[_KERAS]
    return tensorflow


tf = _import_tensorflow()

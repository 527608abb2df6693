"""Writes a SavedModel with one signature of given names, reproducibly."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from modelpack.adapters.savedmodel_bytes import canonicalize
from modelpack.errors import ConversionError, first_line
from modelpack.signature import Signature


def check_input_names(signature: Signature) -> None:
    """Refuse names that TensorFlow would change: its arguments are Python names.

    Raises:
        ConversionError: an input has such a name.
    """
    for spec in signature.inputs:
        if not re.fullmatch(r"[A-Za-z]\w*", spec.name, re.ASCII):
            raise ConversionError(
                f"a SavedModel cannot have an input called '{spec.name}'",
                hint="use a letter, then letters, digits and underscores: name it with --input",
            )
    if len({spec.name.lower() for spec in signature.inputs}) < len(signature.inputs):
        raise ConversionError(
            "a SavedModel cannot have inputs whose names differ only in case: "
            + ", ".join(spec.name for spec in signature.inputs),
            hint="rename them with --input",
        )


def save(module: Any, function: Any, signature: Signature, target: str) -> None:
    """Save a module with a concrete function as its only signature.

    The function is not an attribute of the module: saving would trace it once more and
    write it twice.

    Raises:
        ConversionError: TensorFlow cannot save it.
    """
    import tensorflow as tf

    shutil.rmtree(target, ignore_errors=True)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(module, target, signatures={signature.name: function}, options=options)
    except (AssertionError, ValueError) as error:
        raise ConversionError(f"TensorFlow cannot save the model: {first_line(error)}") from error
    canonicalize(Path(target))

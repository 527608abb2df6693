"""Writes a SavedModel with signatures of given names, reproducibly."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
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


def save(module: Any, functions: Mapping[str, Any], target: str) -> None:
    """Save a module with concrete functions as its signatures, by their names.

    The functions are no attributes of the module: saving would trace them once more and
    write them twice.

    Raises:
        ConversionError: TensorFlow cannot save it.
    """
    import tensorflow as tf

    shutil.rmtree(target, ignore_errors=True)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(module, target, signatures=dict(functions), options=options)
    except (AssertionError, ValueError) as error:
        raise ConversionError(f"TensorFlow cannot save the model: {first_line(error)}") from error
    canonicalize(Path(target))

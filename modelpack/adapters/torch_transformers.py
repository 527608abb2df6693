"""Models of Hugging Face transformers, as `save_pretrained` writes them to a directory.

The class is the one that ``config.json`` names, of the installed library: code that a directory
brings along is never run, and nothing is fetched. Tokenizers and processors are no part of it.
"""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

import torch

from modelpack.adapters.torch_scan import shown
from modelpack.artifact import ModelRef
from modelpack.dependencies import install_hint
from modelpack.errors import InputError, MissingDependencyError, first_line
from modelpack.signature import DType, TensorSpec

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_TOKENS = ("input_ids", "attention_mask", "token_type_ids")
_REFERENCE_HINT = (
    "load it in Python, in a function that returns the model, and give that: file.py:function"
)


def load_pretrained(ref: ModelRef) -> torch.nn.Module:
    """Return the model of a directory, in float32, answering without a cache.

    Raises:
        MissingDependencyError: transformers is not installed.
        InputError: weights are missing, or it needs code or weights of another kind.
    """
    config = _config(ref.path)
    _demand_plain(ref, config)
    transformers = _library(ref)
    name = config["architectures"][0]
    kind: Any = getattr(transformers, str(name), None)
    if not _is_model(kind, transformers):
        raise InputError(
            f"'{ref.display}' is a {name}, which transformers {transformers.__version__} "
            "does not have" + (", but code beside it" if "auto_map" in config else ""),
            hint=f"code of a directory is never run: {_REFERENCE_HINT}",
        )
    try:
        model, report = kind.from_pretrained(
            ref.location,
            local_files_only=True,
            use_safetensors=any(ref.path.glob("*.safetensors")),
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="eager",  # a name in the configuration can mean fetched code
        )
    except Exception as error:  # whatever the library raises
        raise InputError(
            f"transformers {transformers.__version__} cannot load '{ref.display}': "
            f"{first_line(error)}"
        ) from error
    _demand_complete(ref, report)
    for part in model.modules():  # encoders and decoders can have copies
        if hasattr(part, "config"):
            part.config.use_cache = False  # keys and values of earlier steps are no answers
    model.config.return_dict = True
    return model


def _is_model(kind: object, transformers: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)


def _config(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return found


def _library(ref: ModelRef) -> Any:
    # Read when the library is imported: whatever a configuration asks for, it stays here.
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"'{ref.display}' is a model of transformers, which needs '{error.name}'",
            hint=install_hint("transformers"),
        ) from error
    return transformers


def _demand_plain(ref: ModelRef, config: dict[str, Any]) -> None:
    """Check that the directory holds one whole model in plain numbers."""
    if not config.get("architectures"):
        raise InputError(
            f"the config.json of '{ref.display}' names no class under 'architectures'",
            hint=f"save the model again with save_pretrained, or {_REFERENCE_HINT}",
        )
    if (ref.path / "adapter_config.json").is_file():
        raise InputError(
            f"'{ref.display}' holds an adapter beside a model",
            hint="merge it with merge_and_unload() and save the result",
        )
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "an unknown method")
        raise InputError(
            f"the weights of '{ref.display}' are quantized by {method}",
            hint="convert the float model, and quantize with modelpack quantize",
        )
    if not any(found for pattern in _WEIGHTS for found in ref.path.glob(pattern)):
        raise InputError(
            f"'{ref.display}' has a config.json but no weights of PyTorch ({' or '.join(_WEIGHTS)})"
        )


def _demand_complete(ref: ModelRef, report: dict[str, Any]) -> None:
    """Check that every weight was in the files: the library makes missing ones up."""
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        if report.get(kind):
            raise InputError(
                f"the weights of '{ref.display}' do not fit its class: "
                f"{kind.replace('_', ' ')}: {shown(map(str, report[kind]))}",
                hint="set 'architectures' in config.json to the class that was saved",
            )


# --- inputs --------------------------------------------------------------------------


def default_inputs(model: Any, directory: Path) -> tuple[TensorSpec, ...]:
    """The inputs that a model of transformers takes, by its configuration and ``forward``.

    Token ids, masks and types are int64[batch, seq]; images float32[batch, channels, height,
    width], at the size of the configuration.

    Raises:
        InputError: the configuration does not say the sizes.
    """
    config = model.config
    taken = set(inspect.signature(model.forward).parameters)
    text = config.get_text_config()
    found: list[TensorSpec] = []
    if "input_ids" in taken:
        absent = set() if getattr(text, "type_vocab_size", 0) > 1 else {"token_type_ids"}
        names = [name for name in _TOKENS if name in taken - absent]
        found += [TensorSpec(name, DType.INT64, ("batch", "seq")) for name in names]
    if "pixel_values" in taken:
        found.append(_image(config, directory))
    if "input_features" in taken and hasattr(config, "max_source_positions"):
        shape = ("batch", config.num_mel_bins, 2 * config.max_source_positions)
        found.append(TensorSpec("input_features", DType.FLOAT32, shape))
    if config.is_encoder_decoder and "decoder_input_ids" in taken:
        found.append(TensorSpec("decoder_input_ids", DType.INT64, ("batch", "target_seq")))
    if not any(spec.name == model.main_input_name for spec in found):
        raise InputError(
            f"the configuration of '{directory.name}' does not say the shape of "
            f"'{model.main_input_name}'",
            hint=f"give it: --input '{model.main_input_name}:float32[batch,16000]'",
        )
    return tuple(found)


def _image(config: Any, directory: Path) -> TensorSpec:
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", None) or _processed_size(directory)
    if size is None:
        raise InputError(
            f"the configuration of '{directory.name}' does not say the size of its images",
            hint="give it: --input 'pixel_values:float32[batch,3,224,224]'",
        )
    height, width = (size, size) if isinstance(size, int) else size
    channels = getattr(vision, "num_channels", 3)
    return TensorSpec("pixel_values", DType.FLOAT32, ("batch", channels, int(height), int(width)))


def _processed_size(directory: Path) -> int | tuple[int, int] | None:
    """The size that images are brought to before the model, if a file says so."""
    try:
        settings = json.loads((directory / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for key in ("crop_size", "size"):
        size = settings.get(key)
        if isinstance(size, dict) and {"height", "width"} <= size.keys():
            return int(size["height"]), int(size["width"])
        if isinstance(size, int):
            return size
    return None


def length_limit(model: Any) -> int | None:
    """The longest sequence of tokens that the model has positions for; None where any will do."""
    text = model.config.get_text_config()
    found = [
        limit
        for name in ("max_position_embeddings", "max_target_positions", "n_positions")
        if isinstance(limit := getattr(text, name, None), int)
    ]
    return min(found, default=None)

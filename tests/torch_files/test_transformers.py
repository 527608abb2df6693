"""Directories of Hugging Face transformers, with tiny random models.

Those that load a model need the library, which no other test does, and are skipped without it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file

from modelpack.adapters.torch import describe, to_onnx
from modelpack.adapters.torch_loading import load
from modelpack.adapters.torch_scan import scan
from modelpack.artifact import Encoding, ModelRef, detect
from modelpack.errors import InputError, MissingDependencyError, UntrustedSourceError
from modelpack.signature import TensorSpec
from modelpack.steps import StepOptions

RTOL, ATOL = 1e-4, 1e-5
TEXT = {
    "vocab_size": 90,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.2,
    "max_position_embeddings": 40,
}
T5 = {"vocab_size": 90, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
MODELS: dict[str, tuple[str, str, dict[str, Any], list[str], str]] = {
    "bert": (
        "BertForSequenceClassification",
        "BertConfig",
        TEXT,
        [
            "input_ids:int64[batch,seq]",
            "attention_mask:int64[batch,seq]",
            "token_type_ids:int64[batch,seq]",
        ],
        "logits",
    ),
    "vit": (
        "ViTForImageClassification",
        "ViTConfig",
        {**{key: TEXT[key] for key in list(TEXT)[1:6]}, "image_size": 16, "patch_size": 8},
        ["pixel_values:float32[batch,3,16,16]"],
        "logits",
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {**T5, "decoder_start_token_id": 0},
        [
            "input_ids:int64[batch,seq]",
            "attention_mask:int64[batch,seq]",
            "decoder_input_ids:int64[batch,target_seq]",
        ],
        "logits",
    ),
}


def directory(path: Path, config: dict[str, Any], **tensors: torch.Tensor) -> ModelRef:
    """Write a directory without the library."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    if tensors:
        save_file(tensors, path / "model.safetensors")
    ref = ModelRef("torch", detect(path), str(path))
    assert ref.encoding is Encoding.TRANSFORMERS
    return ref


@pytest.mark.parametrize("name", MODELS)
def test_a_directory_is_converted_as_it_is(tmp_path: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    kind, config, settings, inputs, output = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, kind)(getattr(transformers, config)(**settings)).eval()
    path = tmp_path / name
    model.save_pretrained(path, max_shard_size="10KB")
    assert (path / "model.safetensors.index.json").is_file()
    ref = ModelRef("torch", detect(path), str(path))
    found = describe(ref)
    assert list(found.signature.inputs) == [TensorSpec.parse(text) for text in inputs]
    assert found.versions["transformers"] == transformers.__version__
    settled = ModelRef("torch", ref.encoding, str(path), signature=found.signature)
    to_onnx(settled, str(tmp_path / "model.onnx"), StepOptions())
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    random = np.random.default_rng(0)
    for batch, seq in ((2, 7), (3, 12)):
        sizes = {"batch": batch, "seq": seq, "target_seq": seq + 1}
        feed = {}
        for spec in found.signature.inputs:
            shape = [dim if isinstance(dim, int) else sizes[str(dim)] for dim in spec.shape or ()]
            high = 2 if spec.name in {"attention_mask", "token_type_ids"} else 90
            drawn = random.integers(0, high, shape)
            feed[spec.name] = (
                random.normal(size=shape).astype(np.float32) if spec.dtype.is_float else drawn
            )
        if "attention_mask" in feed:
            feed["attention_mask"][:, 0] = 1
        with torch.no_grad():
            tensors = {key: torch.from_numpy(value) for key, value in feed.items()}
            expected = model(**tensors, use_cache=False)[output].numpy()
        np.testing.assert_allclose(session.run([output], feed)[0], expected, RTOL, ATOL)


def test_the_limits_of_its_inputs_are_known(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.BertModel(transformers.BertConfig(**TEXT))
    model.save_pretrained(tmp_path / "bert")
    found = describe(ModelRef("torch", Encoding.TRANSFORMERS, str(tmp_path / "bert")))
    assert found.dim_bounds == {"seq": (1, 40)}
    highs = {name: found.ranges[name].high for name in found.ranges}
    assert highs == {"input_ids": (89.0,), "attention_mask": (1.0,), "token_type_ids": (1.0,)}


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    ref = directory(tmp_path / "m", {**TEXT, "architectures": ["BertModel"]}, w=torch.ones(1))
    with pytest.raises(InputError, match=r"do not fit its class: missing keys: .*embeddings"):
        load(ref)


@pytest.mark.parametrize("name", ["MyOwnBert", "os", "pipeline", "AutoModel"])
def test_only_classes_of_the_library_are_taken(tmp_path: Path, name: str) -> None:
    pytest.importorskip("transformers")
    settings = {"architectures": [name], "auto_map": {"AutoModel": "code.MyOwnBert"}}
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "code.py").write_text("raise SystemExit('it was run')\n")
    with pytest.raises(InputError, match=f"is a {name}, which transformers .* does not have"):
        load(directory(tmp_path / "m", settings, w=torch.ones(1)))


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    ref = directory(tmp_path / "m", {"architectures": ["BertModel"]}, w=torch.ones(1))
    with pytest.raises(MissingDependencyError, match="needs 'transformers'") as caught:
        load(ref)
    assert "modelpack-cli[transformers]" in caught.value.hint


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no class": ({}, "names no class"),
    "quantized": (
        {"architectures": ["BertModel"], "quantization_config": {"quant_method": "gptq"}},
        "quantized by gptq",
    ),
    "no weights": ({"architectures": ["BertModel"]}, "no weights of PyTorch"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_whole_model_is_refused(tmp_path: Path, name: str) -> None:
    config, says = REFUSED[name]
    with pytest.raises(InputError, match=says):
        load(directory(tmp_path / "m", config))


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    ref = directory(tmp_path / "m", {"architectures": ["BertModel"]}, w=torch.ones(1))
    (tmp_path / "m" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds an adapter"):
        load(ref)


def test_a_pickle_among_the_weights_needs_trust(tmp_path: Path) -> None:
    ref = directory(tmp_path / "m", {"architectures": ["BertModel"]})
    torch.save(torch.nn.Linear(1, 1), tmp_path / "m" / "pytorch_model.bin")
    assert any("Linear" in finding for finding in scan(ref))
    with pytest.raises(UntrustedSourceError):
        load(ref)

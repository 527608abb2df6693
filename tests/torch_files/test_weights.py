"""State dicts and checkpoints: taken where they fit exactly, and explained where they do not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modelpack.adapters.torch_loading import load
from modelpack.adapters.torch_scan import scan
from modelpack.adapters.torch_weights import apply_weights
from modelpack.artifact import Encoding, ModelRef, detect
from modelpack.errors import InputError, UntrustedSourceError


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def trained() -> nn.Module:
    torch.manual_seed(1)
    return network()


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


CHECKPOINTS = {
    "state dict": lambda state: state,
    "nested": lambda state: {"epoch": 3, "state_dict": state},
    "with an optimizer": lambda state: {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]},
        "loss": 0.5,
    },
    "data parallel": lambda state: prefixed(state, "module."),
    "compiled": lambda state: {"model": prefixed(state, "_orig_mod.")},
    "Lightning": lambda state: {
        "pytorch-lightning_version": "2.5",
        "state_dict": prefixed(state, "model._orig_mod."),
        "hyper_parameters": {"width": 4},
    },
    "half precision": lambda state: {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    },
}


@pytest.mark.parametrize("kind", ["zip", "old"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_of_every_kind_are_taken(tmp_path: Path, name: str, kind: str) -> None:
    expected = trained().state_dict()
    path = tmp_path / "weights.ckpt"
    torch.save(CHECKPOINTS[name](expected), path, _use_new_zipfile_serialization=kind == "zip")
    model = network()
    apply_weights(model, path)
    tolerance = 1e-3 if name == "half precision" else 0.0
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, expected[key], rtol=tolerance, atol=tolerance)


def test_safetensors_are_known_by_their_content(tmp_path: Path) -> None:
    save_file(trained().state_dict(), tmp_path / "weights.bin")
    model = network()
    apply_weights(model, tmp_path / "weights.bin")
    assert torch.equal(model[0].weight, trained()[0].weight)


def renamed(state: dict[str, Any]) -> dict[str, Any]:
    state["extra"] = state.pop("0.weight")
    return state


MISFITS = {
    "renamed": (renamed, r"missing keys: 0\.weight; unexpected keys: extra"),
    "resized": (
        lambda state: state | {"2.bias": torch.zeros(3)},
        r"size mismatch for 2\.bias: float32\[3\] in the file, float32\[2\] in the model",
    ),
    "integers": (
        lambda state: state | {"2.bias": torch.zeros(2, dtype=torch.int8)},
        r"mismatch for 2\.bias: int8\[2\]",
    ),
    "two of them": (
        lambda state: {"model": state, "ema": state},
        r"several weights that fit the model: (model, ema|ema, model)",
    ),
    "optimizer": (
        lambda state: {"state": {}, "param_groups": []},
        "holds the state of an optimizer, no state dict",
    ),
    "a part": (lambda state: prefixed(state, "backbone.") | {"head": torch.ones(1)}, "missing"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_weights_that_do_not_fit_change_nothing(tmp_path: Path, name: str) -> None:
    change, says = MISFITS[name]
    torch.save(change(trained().state_dict()), tmp_path / "weights.pt")
    model = network()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=says):
        apply_weights(model, tmp_path / "weights.pt")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_weights_of_another_framework_are_named(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "weights.pt", "w") as file:
        file["w"] = [1.0]
    with pytest.raises(InputError, match="no weights of PyTorch: its content is h5"):
        apply_weights(network(), tmp_path / "weights.pt")


@pytest.mark.parametrize("kind", ["zip", "old"])
def test_more_than_tensors_needs_trust(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "weights.pt"
    content = {"state_dict": trained().state_dict(), "options": argparse.Namespace(width=4)}
    torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(UntrustedSourceError, match=r"argparse\.Namespace"):
        apply_weights(network(), path)
    model = network()
    apply_weights(model, path, trusted=True)
    assert torch.equal(model[0].weight, trained()[0].weight)


# --- given as models --------------------------------------------------------------------


ALONE = {
    "state dict": (
        lambda state: state,
        r"holds only weights \(9 tensors, 43 numbers, the first '0\.weight' float32\[4, 3\]\)",
        "--weights",
    ),
    "checkpoint": (
        lambda state: {"epoch": 1, "net": prefixed(state, "module.")},
        r"a checkpoint with weights \('net': 9 tensors",
        "'module.' before every name is taken away",
    ),
    "Lightning": (
        lambda state: {"pytorch-lightning_version": "2", "state_dict": state},
        "a checkpoint of Lightning",
        "--weights",
    ),
    "optimizer": (
        lambda state: {"state": {}, "param_groups": []},
        "the state of an optimizer",
        "the file of the model",
    ),
    "tensor": (lambda state: state["0.bias"], "a Tensor, not a model", "the file of the model"),
}


@pytest.mark.parametrize("kind", ["zip", "old"])
@pytest.mark.parametrize("name", ALONE)
def test_a_file_without_a_model_says_what_it_holds(tmp_path: Path, name: str, kind: str) -> None:
    make, says, hint = ALONE[name]
    path = tmp_path / f"{kind}.pt"
    content = make(trained().state_dict())
    torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    ref = ModelRef("torch", detect(path), str(path))
    assert ref.encoding is Encoding.TORCH_SAVE
    assert scan(ref) == []
    with pytest.raises(InputError, match=says) as caught:
        load(ref)
    assert hint in caught.value.hint


@pytest.mark.parametrize("kind", ["zip", "old"])
def test_a_whole_module_needs_trust(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.pt"
    torch.save(trained(), path, _use_new_zipfile_serialization=kind == "zip")
    ref = ModelRef("torch", detect(path), str(path))
    with pytest.raises(UntrustedSourceError, match=r"torch\.nn\.modules\.container\.Sequential"):
        load(ref)
    model = load(ModelRef("torch", ref.encoding, str(path), trusted=True))
    assert torch.equal(model[0].weight, trained()[0].weight)

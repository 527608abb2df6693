"""Factories of Python references and what they are called with, as users give it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

import modelpack
from modelpack.errors import InputError
from modelpack.reference import canonical_arguments, load
from modelpack.sources import Request, locate

NET = """
import torch


class Net(torch.nn.Sequential):
    def __init__(self, classes, *, width=4):
        first, last = torch.nn.Linear(3, width), torch.nn.Linear(width, classes)
        super().__init__(first, torch.nn.Tanh(), last)


def build(classes, width=4):
    return Net(classes, width=width)


model = Net(2)
"""
X = "x:float32[batch,3]"


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module file of its own name, so that no earlier import stands for it."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"net_{tmp_path.name}.py"
    file.write_text(NET)
    return file.name


@pytest.mark.parametrize(
    ("attribute", "arguments", "sizes"),
    [
        ("build", '{"classes": 5}', (4, 5)),
        ("build", '{"width": 7, "classes": 5}', (7, 5)),
        ("build", "[5, 7]", (7, 5)),
        ("Net", '{"classes": 5, "width": 6}', (6, 5)),
        ("model", "", (4, 2)),
    ],
)
def test_functions_and_classes_are_called_with_them(
    net: str, attribute: str, arguments: str, sizes: tuple[int, int]
) -> None:
    model = load(locate(Request(f"{net}:{attribute}", factory_args=arguments)))
    assert (model[0].out_features, model[2].out_features) == sizes


@pytest.mark.parametrize(
    ("attribute", "arguments", "says"),
    [
        ("build", '{"clases": 5}', r"takes \(classes, width=4\), but missing .*'classes'"),
        ("build", '{"classes": 5, "depth": 2}', "unexpected keyword argument 'depth'"),
        ("build", "[1, 2, 3]", "too many positional"),
        ("build", "", r"missing a required argument: 'classes'"),
        ("build", "[5", "no JSON"),
        ("build", "5", "the arguments of the factory are 5"),
        ("build", '{"classes": NaN}', "NaN is no number"),
        ("build", '{"classes": 5, "classes": 6}', "twice"),
        ("build", '{"classes": "many"}', r"calling '.*:build' failed: TypeError"),
        ("model", "[1]", "is a Net, which is not called"),
    ],
)
def test_what_cannot_be_is_refused(net: str, attribute: str, arguments: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load(locate(Request(f"{net}:{attribute}", factory_args=arguments)))


def test_a_file_takes_none(models: Path) -> None:
    with pytest.raises(InputError, match="belongs to a Python reference"):
        locate(Request(str(models / "torch_cnn.pt2"), factory_args="[1]"))


def test_their_order_is_of_no_meaning() -> None:
    texts = (
        '{"b": [1, 2], "a": {"d": null, "c": "\u00e9"}}',
        '{"a":{"c":"\\u00e9","d":null},"b":[1,2]}',
    )
    one, other = map(canonical_arguments, texts)
    assert one == other
    assert json.loads(one) == json.loads(texts[0])
    assert canonical_arguments("[1, 2]") != canonical_arguments("[2, 1]")


def test_the_manifest_records_them(net: str, tmp_path: Path) -> None:
    made = [
        modelpack.convert(
            f"{net}:build", tmp_path / f"{index}.onnx", inputs=[X], factory_args=arguments
        )
        for index, arguments in enumerate(
            [{"classes": 5, "width": 7}, {"width": 7, "classes": 5}, [5, 6]]
        )
    ]
    assert made[0].source == made[1].source
    assert made[0].source.digest != made[2].source.digest
    written = yaml.safe_load((tmp_path / "0.onnx.modelpack.yaml").read_text())
    assert written["source"]["factory_args"] == {"classes": 5, "width": 7}
    report = modelpack.validate(
        tmp_path / "2.onnx", reference=f"{net}:build", factory_args=[5, 6], inputs=[X]
    )
    assert report
    with pytest.raises(InputError, match="no plain values"):
        modelpack.inspect(f"{net}:build", factory_args={"classes": torch.ones(1)}, inputs=[X])

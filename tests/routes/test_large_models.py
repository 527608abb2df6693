"""Models so large that they are run no more often than they must be, and of large images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.parser import parse_graph

from fixtures.inline import InlinePool
from modelpack.judging.compare import judgement_for
from modelpack.judging.evidence import edge_evidence, generated
from modelpack.judging.trials import tried
from modelpack.parity import Verdict
from modelpack.sources import Opened, Request, locate, open_model

LIMIT = 3.6  # beyond it a row loses digits


def opened(pool: InlinePool, path: Path) -> Opened:
    return open_model(pool, locate(Request(str(path))))


def large_file(path: Path, last_steps: str) -> Path:
    """A product with a million weights, to which some rows add what they take away again."""
    graph = parse_graph(f"""large (float[batch, 1000] x) => (float[batch, 1000] y)
        <float limit = {{{LIMIT}}}, float much = {{100000.0}}, int64[1] columns = {{1}},
         float factor = {{1.001}}> {{
            past = Sub(x, limit)
            far = Relu(past)
            most = ReduceMax(far, columns)
            added = Mul(most, much)
            h = MatMul(x, weights)
            {last_steps}
        }}""")
    weights = np.random.default_rng(5).standard_normal((1000, 1000)).astype(np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("last_steps", "expected"),
    [
        ("down = Sub(h, added)  y = Add(down, added)", Verdict.PASSED),
        ("up = Add(h, added)  z = Sub(up, added)  y = Mul(z, factor)", Verdict.FAILED),
    ],
)
def test_each_case_has_its_own_noise_where_it_is_needed(
    last_steps: str, expected: Verdict, tmp_path: Path
) -> None:
    pool = InlinePool(tmp_path)
    path = large_file(tmp_path / "source.onnx", "up = Add(h, added)  y = Sub(up, added)")
    source = opened(pool, path)
    assert source.description.is_large
    evidence = generated(pool, source, 0)
    beyond = [bool((case["x"] > LIMIT).any()) for case in evidence.cases]
    assert not any(beyond[:2])
    assert any(beyond[2:])
    made = opened(pool, large_file(tmp_path / "made.onnx", last_steps))
    judgement = judgement_for("float32")
    assert tried(pool, made, evidence, judgement).verdict is Verdict.FAILED
    assert tried(pool, made, evidence, judgement, reference=source).verdict is expected


def halves_joined(keras: Any) -> Any:
    """A network that halves images four times, and joins what it doubles again."""
    layers = keras.layers
    image = keras.Input((None, None, 3))
    levels = [image]
    for _ in range(4):
        levels.append(layers.Conv2D(4, 3, strides=2, padding="same")(levels[-1]))
    tensor = levels.pop()
    while levels:
        tensor = layers.Concatenate()([layers.UpSampling2D()(tensor), levels.pop()])
    return keras.Model(image, layers.Conv2D(1, 3, padding="same")(tensor))


def test_networks_that_take_no_small_images_are_given_larger_ones(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    halves_joined(keras).save(tmp_path / "m.keras")
    pool = InlinePool(tmp_path)
    source = opened(pool, tmp_path / "m.keras")
    typical, edges = generated(pool, source, 0), edge_evidence(pool, source, 0)
    sizes = {case["input"].shape[1:3] for case in typical.cases}
    assert len(sizes) > 2
    assert all(size % 32 == 0 for pair in sizes for size in pair)
    assert {"zero", "extreme"} <= set(edges.kinds_of_cases)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from modelpack import golden
from modelpack.errors import ManifestError
from modelpack.signature import Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec.parse("x/in:float32[n,2]"), TensorSpec.parse("b:bfloat16[n]")),
    (TensorSpec.parse("x/in:string[n]"), TensorSpec.parse("y:float32[n]")),
)


def evidence() -> golden.Evidence:
    feeds, answers = [], []
    for rows in (1, 2, 5):
        feeds.append(
            {
                "x/in": np.arange(rows * 2, dtype=np.float32).reshape(rows, 2),
                "b": np.arange(rows).astype(ml_dtypes.bfloat16),
            }
        )
        answers.append(
            {"x/in": np.array(["é"] * rows, object), "y": np.arange(rows, dtype=np.float32)}
        )
    return golden.Evidence(feeds, answers, "data", "keras source")


def test_golden_samples_are_read_back_with_their_origin(tmp_path: Path) -> None:
    of_half = replace(evidence(), arithmetic="float16")
    entry = golden.write(tmp_path / "golden.npz", "golden.npz", of_half, seed=5)
    assert (entry.path, entry.cases, entry.origin, entry.seed) == ("golden.npz", 3, "data", 5)
    found = golden.read(entry, tmp_path, SIGNATURE)
    assert (found.origin, found.arithmetic) == ("data", "float16")
    for want, have in ((evidence().cases, found.cases), (evidence().outputs, found.outputs)):
        for one, other in zip(want, have, strict=True):
            assert one.keys() == other.keys()
            for name, array in one.items():
                assert array.dtype == other[name].dtype
                np.testing.assert_array_equal(array, other[name])


def test_changed_or_missing_golden_samples_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "golden.npz"
    entry = golden.write(file, "golden.npz", evidence(), seed=0)
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(ManifestError, match="missing or is not what"):
        golden.read(entry, tmp_path, SIGNATURE)
    file.unlink()
    with pytest.raises(ManifestError, match="missing or is not what"):
        golden.read(entry, tmp_path, SIGNATURE)


def test_golden_samples_without_a_tensor_of_the_signature_are_refused(tmp_path: Path) -> None:
    entry = golden.write(tmp_path / "golden.npz", "golden.npz", evidence(), seed=0)
    more = replace(SIGNATURE, outputs=(*SIGNATURE.outputs, TensorSpec.parse("z:float32")))
    with pytest.raises(ManifestError, match="has no 'outputs/z'"):
        golden.read(entry, tmp_path, more)


def test_feeds_are_cut_into_batches_of_the_fixed_size() -> None:
    whole = evidence()
    rows = sum(len(case["b"]) for case in whole.cases)
    found = whole.fitted_to(SIGNATURE, {"n": 1})
    assert [len(case["b"]) for case in found.cases] == [1] * rows
    joined = np.concatenate([case["b"] for case in found.cases])
    np.testing.assert_array_equal(joined, np.concatenate([case["b"] for case in whole.cases]))
    assert len(found.outputs) == rows
    pairs = whole.fitted_to(SIGNATURE, {"n": 2})
    assert {len(case["b"]) for case in pairs.cases} == {2}
    assert len(whole.fitted_to(SIGNATURE, {}).cases) == len(whole.cases)
    assert not whole.fitted_to(SIGNATURE, {"n": 9}).cases


def test_scalars_are_kept_whole_where_rows_are_taken() -> None:
    feed = {"scale": np.float32(2.5).reshape(()), "x": np.arange(6.0)[:, None]}
    kept = golden.Evidence([feed], [{"y": feed["x"] * 2.5}], "generated", "source").head(4)
    assert kept.cases[0]["scale"] == 2.5
    np.testing.assert_array_equal(kept.cases[0]["x"][:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(kept.outputs[0]["y"][:, 0], [0, 2.5, 5, 7.5])

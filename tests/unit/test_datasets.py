from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelpack.datasets import BATCH_ROWS, read
from modelpack.errors import InputError
from modelpack.signature import DType, Signature, TensorSpec


def signature(*inputs: str) -> Signature:
    return Signature(tuple(map(TensorSpec.parse, inputs)), ())


X = signature("x:float32[batch,2]")
TABLE = Signature((TensorSpec("x", DType.FLOAT32, ("n", 2), columns=("width", "height")),), ())
ROWS = np.arange(10, dtype=np.float32).reshape(5, 2)


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


# --- kinds of files -------------------------------------------------------------------


def test_an_npz_holds_inputs_by_name_and_labels(tmp_path: Path) -> None:
    file = npz(tmp_path / "d.npz", x=ROWS, labels=np.arange(5))
    found = read(file, X)
    np.testing.assert_array_equal(found.inputs["x"], ROWS)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 3, 4]
    assert len(found) == 5


def test_an_npy_is_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", ROWS)
    found = read(tmp_path / "d.npy", X)
    np.testing.assert_array_equal(found.inputs["x"], ROWS)
    assert found.labels is None


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_are_put_together_in_the_order_of_the_model(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"height": [2.0, 4.0], "extra": ["a", "b"], "width": [1, 3]})
    frame["target"] = ["yes", "no"]
    file = tmp_path / f"d.{kind}"
    frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    found = read(file, TABLE)
    assert found.inputs["x"].dtype == np.float32
    assert found.inputs["x"].tolist() == [[1, 2], [3, 4]]
    assert found.labels is not None
    assert found.labels.dtype == object
    assert found.labels.tolist() == ["yes", "no"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_column_can_be_an_input_of_its_own(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"age": [1, 2], "city": ["Bonn", "Ulm"]})
    file = tmp_path / f"d.{kind}"
    frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    found = read(file, signature("city:string[n,1]", "age:float32[n,1]"))
    assert found.inputs["city"].tolist() == [["Bonn"], ["Ulm"]]
    assert found.inputs["age"].tolist() == [[1], [2]]


def test_empty_cells_of_a_table_are_missing_values(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("width,height\n1,\n3,4\n")
    values = read(tmp_path / "d.csv", TABLE).inputs["x"]
    assert np.isnan(values[0, 1])
    assert values[1].tolist() == [3, 4]


def test_shards_are_joined_in_the_order_of_their_names(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    root.mkdir()
    npz(root / "b.npz", x=ROWS[2:], y=np.array([2, 3, 4]))
    npz(root / "a.npz", x=ROWS[:2], y=np.array([0, 1]))
    (root / "readme.txt").write_text("ignored")
    found = read(root, X)
    np.testing.assert_array_equal(found.inputs["x"], ROWS)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 3, 4]


def test_shards_must_hold_the_same_arrays(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", x=ROWS, y=np.arange(5))
    npz(tmp_path / "b.npz", x=ROWS)
    with pytest.raises(InputError, match="do not all hold the same arrays"):
        read(tmp_path, X)


def test_a_directory_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.npz shards"):
        read(tmp_path, X)


# --- labels ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["labels", "label", "target", "y"])
def test_labels_have_one_of_four_names(tmp_path: Path, name: str) -> None:
    found = read(npz(tmp_path / "d.npz", x=ROWS, **{name: np.arange(5)}), X)
    assert found.labels is not None


def test_an_input_called_like_labels_is_an_input(tmp_path: Path) -> None:
    file = npz(tmp_path / "d.npz", y=ROWS, label=np.arange(5))
    found = read(file, signature("y:float32[n,2]"))
    np.testing.assert_array_equal(found.inputs["y"], ROWS)
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 2, 3, 4]


def test_a_column_of_labels_is_made_flat(tmp_path: Path) -> None:
    found = read(npz(tmp_path / "d.npz", x=ROWS, y=np.arange(5)[:, None]), X)
    assert found.labels is not None
    assert found.labels.shape == (5,)


def test_text_labels_are_objects(tmp_path: Path) -> None:
    found = read(npz(tmp_path / "d.npz", x=ROWS, y=np.array(list("abcde"))), X)
    assert found.labels is not None
    assert found.labels.dtype == object


# --- refusals -------------------------------------------------------------------------


def test_arrays_of_different_lengths_are_refused(tmp_path: Path) -> None:
    file = npz(tmp_path / "d.npz", a=ROWS, b=ROWS[:3])
    with pytest.raises(InputError, match=r"different lengths: \{'a': 5, 'b': 3\}"):
        read(file, signature("a:float32[n,2]", "b:float32[n,2]"))


def test_too_few_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"different lengths: \{'x': 5, 'labels': 4\}"):
        read(npz(tmp_path / "d.npz", x=ROWS, y=np.arange(4)), X)


def test_a_missing_input_is_named_with_what_there_is(tmp_path: Path) -> None:
    file = npz(tmp_path / "d.npz", first=ROWS, second=ROWS)
    with pytest.raises(InputError, match=r"lacks an array 'x' .* it holds first, second"):
        read(file, X)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("width,depth\n1,2\n")
    with pytest.raises(InputError, match=r"lacks columns \['height'\]"):
        read(tmp_path / "d.csv", TABLE)


@pytest.mark.parametrize(
    ("spec", "array"),
    [
        ("x:float32[n,2]", np.array([["a", "b"]])),
        ("x:string[n,2]", ROWS),
        ("x:int64[n,2]", ROWS),
        ("x:int64[n,2]", ROWS > 1),
        ("x:bool[n,2]", ROWS.astype(int)),
        ("x:bool[n,2]", ROWS),
        ("x:float32[n,2]", ROWS.astype(np.complex64)),
        ("x:float32[n,2]", ROWS.astype("datetime64[s]")),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path: Path, spec: str, array: Any) -> None:
    with pytest.raises(InputError, match=r"takes|not supported"):
        read(npz(tmp_path / "d.npz", x=array), signature(spec))


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int8", [128]),
        ("int8", [-129]),
        ("uint8", [-1]),
        ("uint64", [-1]),
        ("int32", [2**31]),
        ("int64", np.array([2**63], np.uint64)),
    ],
)
def test_integers_that_do_not_fit_are_refused(tmp_path: Path, dtype: str, values: Any) -> None:
    with pytest.raises(InputError, match=f"do not fit {dtype}"):
        read(npz(tmp_path / "d.npz", x=np.asarray(values)), signature(f"x:{dtype}[n]"))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("float64", "float32"),
        ("float32", "float64"),
        ("int64", "float32"),
        ("bool", "float32"),
        ("uint8", "int64"),
        ("int64", "uint8"),
        ("float32", "float16"),
    ],
)
def test_numbers_are_cast_where_nothing_is_lost(tmp_path: Path, given: str, wanted: str) -> None:
    array = np.array([[0, 1], [1, 0]]).astype(given)
    found = read(npz(tmp_path / "d.npz", x=array), signature(f"x:{wanted}[n,2]")).inputs["x"]
    assert found.dtype == np.dtype(wanted)
    assert found.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("shape", [(5, 3), (5,), (5, 2, 1), (2, 5), (5, 1)])
def test_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = npz(tmp_path / "d.npz", x=np.zeros(shape, np.float32))
    with pytest.raises(InputError, match=r"has shape .*, not x:float32\[batch,2\]"):
        read(file, X)


def test_a_lone_axis_at_the_end_may_be_left_out(tmp_path: Path) -> None:
    images = np.zeros((5, 8, 8), np.float32)
    found = read(npz(tmp_path / "d.npz", x=images), signature("x:float32[n,8,8,1]"))
    assert found.inputs["x"].shape == (5, 8, 8, 1)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no samples"):
        read(npz(tmp_path / "d.npz", x=ROWS[:0]), X)


@pytest.mark.parametrize("name", ["d.npz", "d.npy", "d.parquet", "d.csv"])
@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02garbage", b"\x93NUMPY\x01\x00"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read(tmp_path / name, TABLE)


@pytest.mark.parametrize("kind", ["npz", "npy", "parquet"])
def test_truncated_files_are_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"d.{kind}"
    if kind == "parquet":
        pd.DataFrame({"width": [1.0], "height": [2.0]}).to_parquet(file)
    elif kind == "npz":
        npz(file, x=ROWS)
    else:
        np.save(file, ROWS)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match=f"cannot read 'd.{kind}'"):
        read(file, TABLE)


def test_pickled_arrays_are_not_read(tmp_path: Path) -> None:
    npz(tmp_path / "d.npz", x=np.array([[{}, {}]], object))
    np.save(tmp_path / "d.npy", np.array([[{}, {}]], object))
    for name in ("d.npz", "d.npy"):
        with pytest.raises(InputError, match="cannot read"):
            read(tmp_path / name, X)


@pytest.mark.parametrize("name", ["missing.npz", "missing"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"no data file .*{name}"):
        read(tmp_path / name, X)


def test_a_file_of_unknown_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d.xlsx").write_bytes(b"PK")
    with pytest.raises(InputError, match="cannot tell what data"):
        read(tmp_path / "d.xlsx", X)


# --- batches --------------------------------------------------------------------------


def many(tmp_path: Path, rows: int, spec: str) -> Any:
    array = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    file = npz(tmp_path / "d.npz", x=array, y=np.arange(rows))
    return read(file, signature(spec))


def test_batches_hold_every_sample_once_in_order(tmp_path: Path) -> None:
    found = many(tmp_path, 150, "x:float32[n,2]")
    batches = found.batches()
    assert [len(batch["x"]) for batch in batches] == [BATCH_ROWS, BATCH_ROWS, 150 - 2 * BATCH_ROWS]
    np.testing.assert_array_equal(
        np.concatenate([batch["x"] for batch in batches]), found.inputs["x"]
    )


def test_a_fixed_batch_size_is_kept_and_the_rest_is_dropped(tmp_path: Path) -> None:
    found = many(tmp_path, 11, "x:float32[4,2]")
    assert [len(batch["x"]) for batch in found.batches()] == [4, 4]
    assert found.labels.tolist() == list(range(8))


def test_fewer_samples_than_a_fixed_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"takes 4 samples at once; 'd\.npz' has 3"):
        many(tmp_path, 3, "x:float32[4,2]")


@pytest.mark.parametrize(
    ("rows", "asked", "sizes"),
    [(10, 7, [1, 2, 4]), (10, 20, [1, 2, 7]), (3, 9, [1, 2]), (2, 9, [1, 1]), (1, 9, [1])],
)
def test_uneven_cases_are_of_one_of_two_and_of_the_other_rows(
    tmp_path: Path, rows: int, asked: int, sizes: list[int]
) -> None:
    cases = many(tmp_path, rows, "x:float32[n,2]").uneven_cases(asked)
    assert [len(case["x"]) for case in cases] == sizes


def test_uneven_cases_of_a_fixed_batch_are_whole_batches(tmp_path: Path) -> None:
    cases = many(tmp_path, 12, "x:float32[4,2]").uneven_cases(9)
    assert [len(case["x"]) for case in cases] == [4, 4]


def test_the_head_keeps_inputs_and_labels_together(tmp_path: Path) -> None:
    found = many(tmp_path, 12, "x:float32[n,2]").head(5)
    assert len(found) == 5
    assert found.labels.tolist() == [0, 1, 2, 3, 4]

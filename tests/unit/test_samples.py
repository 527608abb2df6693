from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from modelpack.errors import InputError
from modelpack.samples import SIZES, dtype_of, edges, generate, numpy_dtype, read_cases, write_cases
from modelpack.signature import DType, Signature, TensorSpec
from modelpack.steps import Description, Range


def signature(*inputs: str) -> Signature:
    return Signature(tuple(map(TensorSpec.parse, inputs)), ())


def feeds(it: Signature, seed: int = 0, **facts: Any) -> list[dict[str, Any]]:
    return generate(Description(it, **facts), seed=seed)


def round_trip(tmp_path: Path, case: dict[str, Any], *specs: TensorSpec) -> dict[str, Any]:
    write_cases(tmp_path / "cases.npz", [case])
    (found,) = read_cases(tmp_path / "cases.npz", specs)
    return found


NUMERIC = [dtype for dtype in DType if dtype not in {DType.STRING, DType.BFLOAT16}]
TENSOR_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,8}", fullmatch=True)


@settings(max_examples=80)
@given(
    st.lists(
        st.dictionaries(
            TENSOR_NAMES,
            hnp.arrays(
                st.sampled_from(NUMERIC).map(numpy_dtype),
                hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
            ),
            min_size=1,
            max_size=3,
        ),
        max_size=3,
    )
)
def test_cases_are_read_back_bit_by_bit(tmp_path: Path, cases: list[dict[str, Any]]) -> None:
    write_cases(tmp_path / "cases.npz", cases)
    found = read_cases(tmp_path / "cases.npz")
    assert len(found) == len(cases)
    for want, have in zip(cases, found, strict=True):
        assert list(want) == list(have)
        for name, array in want.items():
            assert have[name].dtype == array.dtype
            assert have[name].shape == array.shape
            assert have[name].tobytes() == array.tobytes()


# A NUL at the end of a string is lost in NumPy's fixed-width text.
@given(
    hnp.arrays(
        object,
        hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4),
        elements=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    )
)
def test_strings_come_back_as_objects_with_the_same_text(tmp_path: Path, words: Any) -> None:
    found = round_trip(tmp_path, {"s": words})["s"]
    assert found.dtype == object
    assert found.shape == words.shape
    assert found.tolist() == words.tolist()


@pytest.mark.parametrize(
    "words",
    [
        np.array([b"a", "é".encode()]),
        np.array([b"a", "é".encode()], object),
        np.array(["a", "é"]),
        np.array(["a", "é"], np.dtypes.StringDType()),
    ],
    ids=["bytes", "byte objects", "unicode", "StringDType"],
)
def test_every_array_of_text_is_kept_as_text(tmp_path: Path, words: Any) -> None:
    assert round_trip(tmp_path, {"s": words})["s"].tolist() == ["a", "é"]


def test_bfloat16_comes_back_when_the_spec_says_so(tmp_path: Path) -> None:
    array = np.array([[1.5, -2], [np.inf, 3e38]], ml_dtypes.bfloat16)
    spec = TensorSpec("x", DType.BFLOAT16)
    found = round_trip(tmp_path, {"x": array, "y": array.view(np.uint16)}, spec)
    assert found["x"].dtype == ml_dtypes.bfloat16
    assert found["x"].tobytes() == array.tobytes()
    assert found["y"].dtype == np.uint16


def test_an_empty_bfloat16_array_keeps_its_shape(tmp_path: Path) -> None:
    array = np.zeros((0, 3), ml_dtypes.bfloat16)
    found = round_trip(tmp_path, {"x": array}, TensorSpec("x", DType.BFLOAT16))["x"]
    assert (found.shape, found.dtype) == ((0, 3), np.dtype(ml_dtypes.bfloat16))


def test_more_than_ten_cases_keep_their_order(tmp_path: Path) -> None:
    write_cases(tmp_path / "c.npz", [{"x": np.array([n])} for n in range(12)])
    assert [int(case["x"][0]) for case in read_cases(tmp_path / "c.npz")] == list(range(12))


def test_the_bytes_of_a_file_depend_on_its_content_only(tmp_path: Path) -> None:
    case = {"x": np.arange(6.0).reshape(2, 3), "s": np.array(["a", "b"], object)}
    (tmp_path / "deep").mkdir()
    for name in ("one.npz", "deep/two.npz"):
        write_cases(tmp_path / name, [case, case])
    content = (tmp_path / "one.npz").read_bytes()
    assert content == (tmp_path / "deep/two.npz").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_fortran_ordered_array_comes_back_with_the_same_values(tmp_path: Path) -> None:
    array = np.asfortranarray(np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(round_trip(tmp_path, {"x": array})["x"], array)


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **{"0/x": np.array([{"a": 1}], object)})
    with pytest.raises(InputError, match=r"cannot read the samples in 'c\.npz'"):
        read_cases(tmp_path / "c.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
def test_a_file_of_something_else_is_refused_or_holds_no_cases(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "c.npz").write_bytes(content)
    try:
        assert read_cases(tmp_path / "c.npz") == []
    except InputError as error:
        assert "c.npz" in error.message


def test_a_truncated_or_missing_file_is_refused(tmp_path: Path) -> None:
    write_cases(tmp_path / "c.npz", [{"x": np.arange(100)}])
    (tmp_path / "c.npz").write_bytes((tmp_path / "c.npz").read_bytes()[:-40])
    for name in ("c.npz", "missing.npz"):
        with pytest.raises(InputError, match="cannot read the samples"):
            read_cases(tmp_path / name)


def test_a_changed_byte_in_the_numbers_is_found(tmp_path: Path) -> None:
    write_cases(tmp_path / "c.npz", [{"x": np.full(100, 7, np.uint8)}])
    content = bytearray((tmp_path / "c.npz").read_bytes())
    content[content.index(bytes([7] * 100)) + 50] ^= 1
    (tmp_path / "c.npz").write_bytes(content)
    with pytest.raises(InputError, match="CRC"):
        read_cases(tmp_path / "c.npz")


def test_members_without_a_case_number_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", x=np.zeros(3))
    with pytest.raises(InputError):
        read_cases(tmp_path / "c.npz")


# --- dtypes ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", list(DType))
def test_the_dtype_of_an_array_is_told_for_every_dtype(dtype: DType) -> None:
    assert dtype_of(np.zeros(1, numpy_dtype(dtype))) is dtype


@pytest.mark.parametrize("dtype", ["U3", "S3", object])
def test_every_array_of_text_is_a_string(dtype: Any) -> None:
    assert dtype_of(np.zeros(1, dtype)) is DType.STRING


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "timedelta64[s]", "longdouble"])
def test_dtypes_no_model_takes_are_refused(dtype: str) -> None:
    with pytest.raises(InputError, match="not supported"):
        dtype_of(np.zeros(1, dtype))


# --- generate -------------------------------------------------------------------------


def test_one_dynamic_dimension_takes_each_size_in_turn() -> None:
    cases = feeds(signature("x:float32[batch,3]"))
    assert [case["x"].shape for case in cases] == [(1, 3), (2, 3), (5, 3), (8, 3)]


def test_dimensions_of_one_name_have_one_size_and_others_another() -> None:
    cases = feeds(signature("a:float32[n,m]", "b:int64[n,4,m]"))
    for case in cases:
        n, m = case["a"].shape
        assert case["b"].shape == (n, 4, m)
    assert [case["a"].shape[0] for case in cases] == [*SIZES, 1, 5]
    together = [case["a"].shape[0] == case["a"].shape[1] for case in cases]
    assert together == [False] * 4 + [True] * 2


def test_unknown_dimensions_get_a_size() -> None:
    cases = feeds(signature("x:float32[?,?,3]"))
    assert [case["x"].shape for case in cases] == [(n, 2, 3) for n in SIZES]


def test_static_shapes_and_empty_dimensions_are_kept() -> None:
    for case in feeds(signature("x:float32[2,0]", "y:int8[4]")):
        assert case["x"].shape == (2, 0)
        assert case["y"].shape == (4,)


def test_an_input_of_unknown_rank_cannot_be_made_up() -> None:
    with pytest.raises(InputError, match="'x' has unknown rank") as caught:
        feeds(signature("x:float32"))
    assert "--input 'x:float32[...]'" in caught.value.hint


@pytest.mark.parametrize("dtype", list(DType))
def test_values_have_the_dtype_of_the_input(dtype: DType) -> None:
    for case in feeds(signature(f"x:{dtype}[n,3]")):
        assert case["x"].dtype == numpy_dtype(dtype)


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype is not DType.STRING])
def test_scalars_can_be_generated(dtype: DType) -> None:
    case = feeds(signature(f"x:{dtype}[]"))[0]
    assert (case["x"].shape, case["x"].dtype) == ((), numpy_dtype(dtype))


def test_the_same_seed_gives_the_same_values_and_another_gives_others(tmp_path: Path) -> None:
    it = signature("x:float32[n,3]", "i:int64[n]", "s:string[n]", "b:bool[n]")
    ranges = {"i": Range((0.0,), (1e6,))}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_cases(tmp_path / name, feeds(it, seed, ranges=ranges, accepts_nan=True))
    first, second, third = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == second
    assert first != third


def test_values_differ_between_cases_and_inputs() -> None:
    cases = feeds(signature("a:float32[4,4]", "b:float32[4,4]"))
    drawn = [case[name].tobytes() for case in cases for name in ("a", "b")]
    assert len(set(drawn)) == len(drawn)


def all_values(it: Signature, ranges: dict[str, Range]) -> Any:
    cases = feeds(it, 3, ranges=ranges)
    return np.concatenate([case["x"] for case in cases])


def test_floats_fill_the_range_of_their_column() -> None:
    joined = all_values(signature("x:float64[n,2]"), {"x": Range((0.0, 100.0), (1.0, 200.0))})
    assert (joined[:, 0] >= 0).all()
    assert (joined[:, 0] <= 1).all()
    assert (joined[:, 1] >= 100).all()
    assert (joined[:, 1] <= 200).all()
    assert np.ptp(joined[:, 0]) > 0.5
    assert np.ptp(joined[:, 1]) > 50


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint8", "uint64"])
def test_integers_are_drawn_from_low_to_high_both_included(dtype: str) -> None:
    values = all_values(signature(f"x:{dtype}[n,20]"), {"x": Range((3.0,), (5.0,))})
    assert set(values.ravel().tolist()) == {3, 4, 5}


def test_without_a_range_integers_have_both_signs() -> None:
    found = set(all_values(signature("x:int64[n,20]"), {}).ravel().tolist())
    assert found == set(range(-5, 6))
    unsigned = set(all_values(signature("x:uint8[n,20]"), {}).ravel().tolist())
    assert unsigned == set(range(6))


def test_cautious_integers_are_valid_as_any_index() -> None:
    cases = generate(Description(signature("x:int64[n,20]")), seed=0, cautious=True)
    assert {value for case in cases for value in case["x"].ravel().tolist()} == {0, 1}


def edge_cases(*inputs: str, **facts: Any) -> dict[str, Any]:
    return dict(edges(Description(signature(*inputs), **facts), seed=0))


def test_extremes_are_far_out_in_floats_and_leave_integers_alone() -> None:
    case = edge_cases("x:float32[n,20]", "i:int64[n]")["extreme"]
    assert abs(case["x"]).max() == pytest.approx(100.0, rel=1e-6, abs=0)
    assert (abs(case["x"]) < 5).any()
    assert abs(case["i"]).max() <= 5


def test_edges_of_real_numbers() -> None:
    found = edge_cases("x:float32[n,20]")
    assert set(found) == {
        *("zero", "one", "negative", "halves", "tiny", "extreme", "empty"),
        *("in a large batch", "between 0 and 1", "mostly zero"),
    }
    assert 0.7 < (found["mostly zero"]["x"] == 0).mean() < 0.8
    assert (found["zero"]["x"] == 0).all()
    assert (found["one"]["x"] == 1).all()
    assert (found["negative"]["x"] <= 0).all()
    assert found["empty"]["x"].shape == (0, 20)
    assert all(case["x"].dtype == np.float32 for case in found.values())


def test_missing_and_infinite_values_are_for_models_that_take_missing_ones() -> None:
    found = edge_cases("x:float32[n,20]", accepts_nan=True)
    assert np.isnan(found["missing"]["x"]).all()
    assert np.isposinf(found["infinite"]["x"]).any()
    assert np.isneginf(found["infinite"]["x"]).any()


def test_a_model_in_float64_is_not_taken_to_where_float32_underflows() -> None:
    found = edge_cases("x:float32[n,20]", computes_in_float64=True)
    assert "tiny" not in found
    assert "extreme" not in found
    assert abs(found["far out"]["x"]).max() < 10


def test_edges_of_text_and_of_tables() -> None:
    words = Range(values=("red", "blue"))
    found = edge_cases("s:string[n]", ranges={"s": words})
    assert set(found["unknown text"]["s"]) - {"red", "blue"} == {"not seen before"}
    assert "" in found["empty text"]["s"]
    assert not all(text.isascii() for text in found["non-ASCII text"]["s"])
    found = edge_cases("i:int64[n,3]", ranges={"i": Range((0.0,), (9.0,))})
    ends = {"at the lower end of their range", "at the upper end of their range"}
    assert set(found) == {*ends, "in a large batch", "empty"}
    assert (found["at the upper end of their range"]["i"] == 9).all()


def test_a_model_in_float64_is_fed_every_digit() -> None:
    it = Description(
        signature("x:float32[n,2]"),
        ranges={"x": Range((1e9,), (1e9 + 1,))},
        computes_in_float64=True,
    )
    array = generate(it, seed=0)[-1]["x"]
    assert array.dtype == np.float64
    assert not np.array_equal(array, array.astype(np.float32))


def test_strings_come_from_the_known_categories() -> None:
    values = all_values(signature("x:string[n,20]"), {"x": Range(values=("red", "blue"))})
    assert set(values.ravel().tolist()) == {"red", "blue"}


def test_booleans_take_both_values_and_no_mask_hides_everything() -> None:
    masks = all_values(signature("x:bool[n,20]"), {})
    assert set(masks[:, 1:].ravel().tolist()) == {True, False}
    assert masks.any(axis=-1).all()


def test_sizes_stay_within_the_bounds_of_a_dimension() -> None:
    cases = feeds(signature("x:float32[n,seq]"), dim_bounds={"n": (2, 4), "seq": (1, 8)})
    assert [case["x"].shape for case in cases] == [(2, 2), (2, 5), (4, 8), (4, 1), (2, 1), (4, 5)]


def test_a_last_case_has_missing_values_where_they_are_accepted() -> None:
    it = signature("x:float32[n,9]", "i:int64[n,9]", "s:string[n]")
    without, with_nan = (feeds(it, accepts_nan=nan) for nan in (False, True))
    assert len(with_nan) == len(without) + 1
    assert not any(np.isnan(case["x"]).any() for case in without)
    last = with_nan[-1]
    assert 0 < np.isnan(last["x"]).mean() < 0.5
    np.testing.assert_array_equal(last["i"], with_nan[-2]["i"])
    filled = ~np.isnan(last["x"])
    np.testing.assert_array_equal(last["x"][filled], with_nan[-2]["x"][filled])
    assert last["x"].dtype == np.float32


def test_a_large_batch_is_for_small_models_whose_batch_is_free() -> None:
    many = "in a large batch"
    assert edge_cases("x:float32[n,20]")[many]["x"].shape == (512, 20)
    assert edge_cases("x:float32[n,3,32,32]")[many]["x"].shape == (85, 3, 32, 32)
    assert many not in edge_cases("x:float32[n,3,224,224]")
    assert many not in edge_cases("x:float32[n,20]", parameters=10_000_000)
    assert many not in edge_cases("x:float32[n,20]", dim_bounds={"n": (1, 8)})
    assert many not in edge_cases("x:float32[4,20]")

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpack.errors import InputError
from modelpack.signature import DType, Signature, TensorSpec, differences, requested

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,12}", fullmatch=True)
DIM_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
DIMS = st.one_of(st.integers(0, 2**31), DIM_NAMES, st.none())
SHAPES = st.one_of(st.none(), st.lists(DIMS, max_size=5).map(tuple))
SPECS = st.builds(TensorSpec, NAMES, st.sampled_from(DType), SHAPES)
BLANK = st.sampled_from(["", " ", "  "])


def tensors(*texts: str) -> tuple[TensorSpec, ...]:
    return tuple(map(TensorSpec.parse, texts))


def signature(inputs: list[str], outputs: list[str]) -> Signature:
    return Signature(tensors(*inputs), tensors(*outputs))


@given(SPECS)
def test_a_spec_is_read_back_as_it_was_printed(spec: TensorSpec) -> None:
    assert TensorSpec.parse(str(spec)) == spec


@given(
    NAMES,
    st.sampled_from(DType),
    st.lists(st.one_of(st.integers(0, 10**9).map(str), DIM_NAMES, st.just("?")), max_size=5),
)
def test_a_text_without_blanks_is_printed_as_it_was_read(
    name: str, dtype: DType, dims: list[str]
) -> None:
    text = f"{name}:{dtype}[{','.join(dims)}]"
    assert str(TensorSpec.parse(text)) == text


@given(NAMES, st.sampled_from(DType), st.lists(st.tuples(BLANK, DIMS, BLANK), max_size=4), BLANK)
def test_blanks_around_dimensions_do_not_matter(
    name: str, dtype: DType, dims: list[tuple[str, int | str | None, str]], around: str
) -> None:
    printed = ",".join(f"{a}{'?' if dim is None else dim}{b}" for a, dim, b in dims)
    spec = TensorSpec.parse(f"{around}{name}:{dtype}[{printed}]{around}")
    assert spec == TensorSpec(name, dtype, tuple(dim for _, dim, _ in dims))


@pytest.mark.parametrize("dtype", list(DType))
def test_scalar_and_unknown_rank_differ_for_every_dtype(dtype: DType) -> None:
    assert TensorSpec.parse(f"x:{dtype}[]").shape == ()
    assert TensorSpec.parse(f"x:{dtype}").shape is None
    assert TensorSpec.parse(f"x:{dtype}[?]").shape == (None,)


def test_a_name_may_hold_colons_and_the_last_one_starts_the_dtype() -> None:
    spec = TensorSpec.parse("serving_default_x:0:float32[batch,3]")
    assert (spec.name, spec.dtype, spec.shape) == (
        "serving_default_x:0",
        DType.FLOAT32,
        ("batch", 3),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x:",
        ":float32[1]",
        "1x:float32[1]",
        "-x:float32[1]",
        "x y:float32[1]",
        "x:float32[1",
        "x:float32 1]",
        "x:float32[1]]",
        "x:float32[[1]]",
        "x:float32[1,]",
        "x:float32[,1]",
        "x:float32[1,,2]",
        "x:float32[-1]",
        "x:float32[1.5]",
        "x:float32[1 2]",
        "x:float32[a-b]",
        "x:float32[*]",
        "x:float32[²]",
        "x:float32[٣]",
        "x:float32[é]",
        "x:float32[1]y",
        "x:Float32[1]",
        "x:float[1]",
        "x:complex64[1]",
        "x:object",
        "é:float32[1]",
        "x:float32[1]\ny:float32[1]",
        "x:float32[1\n]z",
    ],
)
def test_text_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        TensorSpec.parse(text)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_with_a_typed_error(text: str) -> None:
    try:
        spec = TensorSpec.parse(text)
    except InputError:
        return
    assert TensorSpec.parse(str(spec)) == spec


def test_an_unknown_dtype_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="unknown dtype 'float33'") as caught:
        TensorSpec.parse("x:float33[1]")
    assert all(dtype in caught.value.hint for dtype in DType)


@pytest.mark.parametrize("name", ["", "1x", "a b", "a\n", "a\x00", "é", '"'])
def test_names_that_cannot_be_written_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="not a usable tensor name"):
        TensorSpec(name, DType.FLOAT32)


@pytest.mark.parametrize("dim", [-1, "", "a b", "a-b", "1a", "a\n", "?"])
def test_dimensions_that_cannot_be_written_are_refused(dim: int | str) -> None:
    with pytest.raises(InputError):
        TensorSpec("x", DType.FLOAT32, (dim,))


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_two_tensors_of_one_side_may_not_share_a_name(side: str) -> None:
    twice = tensors("x:float32[1]", "x:int8[2]")
    sides = {"inputs": (), "outputs": (), side: twice}
    with pytest.raises(InputError, match=f"two {side} are called 'x'"):
        Signature(**sides)


def test_an_input_and_an_output_may_share_a_name() -> None:
    assert Signature(tensors("x:float32[1]"), tensors("x:float32[1]")).inputs


def test_floats_and_integers_are_told_apart() -> None:
    floats = {dtype for dtype in DType if dtype.is_float}
    integers = {dtype for dtype in DType if dtype.is_integer}
    assert floats == {DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64}
    assert set(DType) - floats - integers == {DType.BOOL, DType.STRING}


def test_dynamic_dims_are_listed_once_in_order_of_appearance() -> None:
    it = signature(["a:int64[batch,seq]", "b:int64[batch,heads,4]"], ["y:int64[other]"])
    assert it.dynamic_dims == ("batch", "seq", "heads")


def test_given_sizes_replace_their_dims_everywhere_and_no_others() -> None:
    it = signature(["a:int64[n,m,?]", "b:int64", "c:int64[]"], ["y:int64[n,3]"])
    bound = it.with_dims({"n": 7, "unused": 1})
    assert str(bound) == "(a:int64[7,m,?], b:int64, c:int64[]) -> (y:int64[7,3])"


# --- differences ----------------------------------------------------------------------


@given(st.lists(SPECS, max_size=4, unique_by=lambda spec: spec.name))
def test_a_signature_keeps_what_it_promises_itself_in_any_order(specs: list[TensorSpec]) -> None:
    expected = Signature(tuple(specs), tuple(specs))
    assert differences(expected, Signature(tuple(specs[::-1]), tuple(specs[::-1]))) == []


@pytest.mark.parametrize(
    ("expected", "actual", "found"),
    [
        ("x:float32[n,3]", "x:float32[?,3]", []),
        ("x:float32[n,3]", "x:float32", ["has no known rank, not 2"]),
        ("x:float32", "x:float32[1,2,3]", []),
        ("x:float32[?,3]", "x:float32[9,3]", []),
        ("x:float32[5,3]", "x:float32[?,3]", []),
        ("x:float32[5,3]", "x:float32[n,3]", []),
        ("x:float32[n,3]", "x:float32[1,3]", ["axis 0 is 1, not n"]),
        ("x:float32[n,3]", "x:float32[m,3]", ["axis 0 is m, not n"]),
        ("x:float32[n,3]", "x:float32[n,4]", ["axis 1 is 4, not 3"]),
        ("x:float32[n,3]", "x:float32[n]", ["has rank 1, not 2"]),
        ("x:float32[]", "x:float32[1]", ["has rank 1, not 0"]),
        ("x:float32[n,3]", "x:float64[n,3]", ["is float64, not float32"]),
        ("x:float32[n,3]", "x:float64[2,4]", ["is float64", "axis 0 is 2", "axis 1 is 4"]),
        ("x:float32[n,3]", "z:float32[n,3]", ["'x' is missing", "'z' was not asked for"]),
    ],
)
@pytest.mark.parametrize("side", ["input", "output"])
def test_each_broken_promise_is_named(
    side: str, expected: str, actual: str, found: list[str]
) -> None:
    sides = [signature([text], []) for text in (expected, actual)]
    if side == "output":
        batch = signature(["in:float32[n]"], []).inputs
        sides = [Signature(batch, it.inputs) for it in sides]
    given_back = differences(*sides)
    assert len(given_back) == len(found)
    for message, part in zip(given_back, found, strict=True):
        assert part in message
        assert message.startswith(side)


def test_a_dimension_of_outputs_alone_may_turn_out_constant() -> None:
    expected = signature(["x:float32[n,3]"], ["y:float32[n,found]"])
    assert differences(expected, signature(["x:float32[n,3]"], ["y:float32[n,7]"])) == []
    assert differences(expected, signature(["x:float32[n,3]"], ["y:float32[1,7]"])) != []


# --- requested ------------------------------------------------------------------------

NATIVE = signature(["ids:int64[batch,?]", "mask:int64[batch,8]"], ["logits:float32[batch,seq,3]"])


def test_without_wishes_the_native_signature_is_kept() -> None:
    assert requested(NATIVE, (), ()) == NATIVE


def test_a_known_name_describes_that_input_in_any_position() -> None:
    found = requested(NATIVE, tensors("mask:int64[batch,8]", "ids:int64[batch,seq]"), ())
    assert [str(spec) for spec in found.inputs] == ["ids:int64[batch,seq]", "mask:int64[batch,8]"]


def test_unknown_names_rename_by_position() -> None:
    found = requested(NATIVE, tensors("a:int64[n,seq]", "b:int64[n,8]"), ("scores",))
    assert str(found) == "(a:int64[n,seq], b:int64[n,8]) -> (scores:float32[n,seq,3])"


def test_a_dimension_that_was_renamed_in_inputs_is_renamed_in_outputs() -> None:
    native = signature(["x:float32[dim_0,4]"], ["y:float32[dim_0,2]", "z:float32[4,dim_0]"])
    found = requested(native, tensors("x:float32[batch,4]"), ())
    assert [spec.shape for spec in found.outputs] == [("batch", 2), (4, "batch")]


def test_a_dimension_that_was_fixed_in_inputs_is_fixed_in_outputs() -> None:
    native = signature(["x:float32[batch,4]"], ["y:float32[batch,2]"])
    assert requested(native, tensors("x:float32[6,4]"), ()).outputs[0].shape == (6, 2)


def test_a_wish_without_brackets_renames_and_keeps_the_shape() -> None:
    native = signature(["x:float32[batch,4]"], ["y:float32[batch]"])
    assert str(requested(native, tensors("image:float32"), ()).inputs[0]) == (
        "image:float32[batch,4]"
    )


def test_an_unknown_native_rank_takes_the_described_shape() -> None:
    native = signature(["x:float32"], ["y:float32"])
    found = requested(native, tensors("x:float32[batch,4]"), ())
    assert str(found) == "(x:float32[batch,4]) -> (y:float32)"


def test_columns_classes_and_meaning_survive_renaming() -> None:
    spec = TensorSpec("x", DType.FLOAT32, ("n", 2), columns=("a", "b"))
    label = TensorSpec("y", DType.INT64, ("n",), classes=(3, 5))
    found = requested(Signature((spec,), (label,)), tensors("rows:float32[m,2]"), ("label",))
    assert found.inputs[0] == replace(spec, name="rows", shape=("m", 2))
    assert found.outputs[0] == replace(label, name="label", shape=("m",))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        (["a:int64[n,1]"], (), "1 inputs were described, but the model has 2"),
        (["a:int64", "b:int64", "c:int64"], (), "3 inputs were described"),
        (["ids:int64[n,1]", "other:int64[n,8]"], (), "no input 'other'"),
        ([], ("a", "b"), "2 output names were given, but the model has 1"),
        (["ids:int32[batch,seq]"], (), "the model takes int64"),
        (["mask:int64[batch,9]"], (), "the model takes mask:int64"),
        (["mask:int64[batch,seq]"], (), "the model takes mask:int64"),
        (["mask:int64[batch,?]"], (), "the model takes mask:int64"),
        (["mask:int64[batch,8,1]"], (), "the model takes mask:int64"),
        ([], ("no good",), "not a usable tensor name"),
        (["a:int64", "a:int64"], (), "an input was described twice"),
    ],
)
def test_wishes_the_model_cannot_meet_are_refused(
    inputs: list[str], outputs: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        requested(NATIVE, tensors(*inputs), outputs)

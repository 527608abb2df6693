"""A text in ONNX: its characters, what they are replaced by, and its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx.parser

from modelpack.adapters.sklearn_converters.text import marks
from modelpack.adapters.sklearn_converters.text.characters import (
    FINAL_SIGMA,
    MIDDLE_SIGMA,
    SIGMA,
    Table,
    around_sigma,
    spaces,
)
from modelpack.adapters.sklearn_converters.text.patterns import Tokens, word_character
from modelpack.adapters.sklearn_converters.text.rows import ML_DOMAIN, RUNTIME_DOMAIN
from modelpack.adapters.sklearn_converters.writer import Writer

_TEXT_OPSET = 20  # the first with StringConcat and RegexFullMatch

# Stands for "none of the keys": a noncharacter, which is its own counterpart in any case.
_NO_KEY = "\uffff"

# Two neighbours become one, until there is one.
_JOINING = """
body (int64 join_i, bool join_go, string[n] join_x) => (bool join_again, string[m] join_y) {
    join_0 = Constant <value = int64[1] {0}> ()
    join_1 = Constant <value = int64[1] {1}> ()
    join_2 = Constant <value = int64[1] {2}> ()
    join_blank = Constant <value_strings = [""]> ()
    join_size = Shape (join_x)
    join_grown = Add (join_size, join_1)
    join_half = Div (join_grown, join_2)
    join_even = Slice (join_x, join_0, join_size, join_0, join_2)
    join_some = Slice (join_x, join_1, join_size, join_0, join_2)
    join_more = Concat <axis = 0> (join_some, join_blank)
    join_odd = Slice (join_more, join_0, join_half)
    join_y = StringConcat (join_even, join_odd)
    join_several = Greater (join_half, join_1)
    join_again = Squeeze (join_several, join_0)
}
"""


def refuse_early(writer: Writer) -> None:
    """Raise NotImplementedError for an opset that has no ops on strings."""
    if writer.target_opset < _TEXT_OPSET:
        raise NotImplementedError(
            f"opset {writer.target_opset} cannot put strings together; {_TEXT_OPSET} can"
        )


def matches(writer: Writer, text: str, expression: str) -> str:
    """The longest matches of an expression of RE2, one after the other, as a vector."""
    return _cut(writer, text, tokenexp=expression)


def characters(writer: Writer, text: str) -> str:
    """The characters of a text, as a vector."""
    return _cut(writer, text, separators=[""])


def _cut(writer: Writer, text: str, **how: str | list[str]) -> str:
    found = writer.op(
        "Tokenizer", text, domain=RUNTIME_DOMAIN, mark=0, mincharnum=1, pad_value="", **how
    )
    return writer.flat(found)


def joined(writer: Writer, pieces: str) -> str:
    """A vector of strings as one, ``[1]``; "" for none of them."""
    refuse_early(writer)
    some = writer.op("Concat", pieces, writer.constant([""], "object"), axis=0)
    body = onnx.parser.parse_graph(_JOINING)
    # At most as often as 2**63 can be halved; the condition ends it.
    return writer.op(
        "Loop", writer.constant(63, "int64"), writer.constant(True, "bool"), some, body=body
    )


def numbered(writer: Writer, strings: str, numbers: Mapping[str, int], default: int) -> str:
    """The number of each string, int64."""
    return writer.op(
        "LabelEncoder",
        strings,
        domain=ML_DOMAIN,
        keys_strings=list(numbers),
        values_int64s=list(numbers.values()),
        default_int64=default,
    )


def is_one_of(writer: Writer, strings: str, chosen: Sequence[str]) -> str:
    """Which strings are among some, bool."""
    return writer.cast(numbered(writer, strings, dict.fromkeys(chosen, 1), 0), "bool")


def replaced(writer: Writer, text: str, table: Table, sigma: bool) -> str:
    """A text with each character replaced, ``[1]``.

    Args:
        writer: of the graph.
        text: ``[1]``.
        table: what takes the place of characters.
        sigma: whether a capital sigma at the end of a word becomes a small final one.
    """
    refuse_early(writer)
    pieces = characters(writer, text)
    made = _changed(writer, pieces, table)
    return joined(writer, _with_final_sigma(writer, pieces, made) if sigma else made)


def _changed(writer: Writer, pieces: str, table: Table) -> str:
    """What becomes of each of the characters."""
    made = writer.op(
        "LabelEncoder",
        pieces,
        domain=ML_DOMAIN,
        keys_strings=list(table.entries),
        values_strings=list(table.entries.values()),
        default_string=_NO_KEY if table.default is None else table.default,
    )
    if table.default is not None:
        return made
    missing = writer.op("Equal", made, writer.constant(_NO_KEY, "object"))
    return writer.op("Where", missing, pieces, made)


def _with_final_sigma(writer: Writer, pieces: str, made: str) -> str:
    """Put the final sigma where a capital one comes after a letter, and none comes after it."""
    cased, overlooked = around_sigma()
    kinds = {**dict.fromkeys(cased, 1), **dict.fromkeys(overlooked, 2)}
    kind = numbered(writer, pieces, kinds, 0)
    counts = writer.op("Not", writer.op("Equal", kind, writer.constant(2, "int64")))
    edge = writer.integers(0)
    # The kinds of those that are not overlooked, between two that are no letters.
    kept = writer.op("Concat", edge, writer.op("Compress", kind, counts), edge, axis=0)
    place = writer.op("CumSum", writer.cast(counts, "int64"), writer.constant(0, "int64"))
    one = writer.constant(1, "int64")
    letter = writer.op("Equal", kept, one)
    before, after = (
        writer.op("Gather", letter, writer.op("Max", edge, writer.op(op, place, one)), axis=0)
        for op in ("Sub", "Add")
    )
    sigma = writer.op("Equal", pieces, writer.constant(SIGMA, "object"))
    final = writer.op("And", writer.op("And", sigma, before), writer.op("Not", after))
    return writer.op("Where", final, writer.constant(FINAL_SIGMA, "object"), made)


def needs_sigma(texts: Sequence[str]) -> bool:
    """Whether it matters for these strings which small sigma a capital one becomes."""
    return any(letter in text for text in texts for letter in (MIDDLE_SIGMA, FINAL_SIGMA))


def tokens(writer: Writer, text: str, how: Tokens) -> str:
    """The tokens of a text, as a vector."""
    if how.marked is not None:
        text = _marked(writer, text, word_character(how))
    found = matches(writer, text, how.expression)
    if not how.whole:
        return found
    refuse_early(writer)
    return writer.op("Compress", found, writer.op("RegexFullMatch", found, pattern=how.whole))


def _marked(writer: Writer, text: str, word: str) -> str:
    """A text with marks at the boundaries of words; see `marks`."""
    refuse_early(writer)
    pieces = characters(writer, text)
    of_word = writer.op("RegexFullMatch", pieces, pattern=word)
    outside = writer.constant([False], "bool")
    here = writer.op("Concat", of_word, outside, axis=0)
    before = writer.op("Concat", outside, of_word, axis=0)
    mark, none = (writer.constant(text, "object") for text in (marks.MARK, ""))
    between = writer.op("Where", writer.op("Xor", here, before), mark, none)
    spelled = _changed(writer, pieces, marks.TABLE)
    spelled = writer.op("Concat", spelled, writer.constant([""], "object"), axis=0)
    return joined(writer, writer.op("StringConcat", between, spelled))


def single_spaced(writer: Writer, text: str) -> str:
    """The characters of a text, with two or more spaces, of any kind, as one blank."""
    pieces = characters(writer, text)
    space = is_one_of(writer, pieces, spaces())
    no = writer.constant([False], "bool")
    first, last = writer.integers(0), writer.integers(-1)
    one, end = writer.integers(1), writer.integers(2**62)
    shifted = writer.op("Concat", no, writer.op("Slice", space, first, last), axis=0)
    following = writer.op("Concat", writer.op("Slice", space, one, end), no, axis=0)
    # Of no characters at all, the shifted ones are one too many.
    size = writer.op("Shape", pieces)
    before = writer.op("Slice", shifted, first, size)
    after = writer.op("Slice", following, first, size)
    several = writer.op("And", space, after)
    shown = writer.op("Where", several, writer.constant(" ", "object"), pieces)
    repeated = writer.op("And", space, before)
    return writer.op("Compress", shown, writer.op("Not", repeated))


def padded_words(writer: Writer, text: str) -> str:
    """What is between spaces, with a blank on both sides, as a vector."""
    refuse_early(writer)
    listed = "".join(rf"\x{{{ord(space):x}}}" for space in spaces())
    words = matches(writer, text, f"[^{listed}]+")
    blank = writer.constant(" ", "object")
    return writer.op("StringConcat", writer.op("StringConcat", blank, words), blank)

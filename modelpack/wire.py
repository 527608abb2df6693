"""How fields begin in protocol buffers (https://protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations


def begin(number: int, length: int) -> bytes:
    """What stands before the bytes of a field with a length: a message, text or bytes."""
    with_length = 2
    return varint(number << 3 | with_length) + varint(length)


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last byte have the eighth set."""
    groups = []
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])

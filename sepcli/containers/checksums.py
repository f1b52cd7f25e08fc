"""Cyclic redundancy checks as Ogg and FLAC have them: most significant bit first, begun at 0."""

import functools


@functools.cache
def _table(polynomial, bits):
    """The remainders of all bytes."""
    table, top = [], 1 << (bits - 1)
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = (value << 1 ^ (polynomial if value & top else 0)) & (2 * top - 1)
        table.append(value)
    return table


def remainder(data: bytes | bytearray, polynomial: int, bits: int) -> int:
    """The check of bytes; 0 where they end with their own check."""
    table, rest, mask, value = _table(polynomial, bits), bits - 8, (1 << bits) - 1, 0
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> rest ^ byte]
    return value

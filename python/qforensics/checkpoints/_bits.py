"""Small integers in int32 words: the packings that the checkpoint formats are made of.

Value i of a row starts at bit ``i * bits`` of the row's little-endian bit stream; AWQ permutes the eight values of a
word.
Sources: AutoAWQ (`awq/utils/packing_utils.py`) for the permutation; GPTQModel's packing (`qlinear/__init__.py`), whose
3-bit values straddle words exactly as a bit stream does.
"""

import numpy as np
import numpy.typing as npt

__all__ = ["AWQ_ORDER", "pack_bits", "unpack_bits"]

#: Nibble i of an AWQ word holds column ``8 c + AWQ_ORDER[i]``.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
PLAIN_ORDER = tuple(range(8))


def unpack_bits(
    words: npt.NDArray[np.int32], bits: int = 4, order: tuple[int, ...] = PLAIN_ORDER
) -> npt.NDArray[np.uint8]:
    """Unpack int32 [..., W] into uint8 [..., W * 32 / bits] along the last axis.

    `order` (4 bits only): nibble i of a word goes to place ``order[i]`` of its eight.
    """
    octets = np.ascontiguousarray(words).view(np.uint8)
    lead = words.shape[:-1]
    if bits == 4:
        pairs = octets.reshape(*lead, -1, 4)
        result = np.empty((*pairs.shape[:-1], 8), np.uint8)
        for byte in range(4):
            result[..., order[2 * byte]] = pairs[..., byte] & 15
            result[..., order[2 * byte + 1]] = pairs[..., byte] >> 4
        return result.reshape(*lead, -1)
    if bits == 8:
        return octets.reshape(*lead, -1).copy()
    stream = np.unpackbits(octets.reshape(*lead, -1), axis=-1, bitorder="little")
    fields = stream.reshape(*lead, -1, bits)
    return np.packbits(fields, axis=-1, bitorder="little")[..., 0]


def pack_bits(
    values: npt.NDArray[np.uint8], bits: int = 4, order: tuple[int, ...] = PLAIN_ORDER
) -> npt.NDArray[np.int32]:
    """Inverse of `unpack_bits`: uint8 [..., M], values below ``2**bits``, M * bits a multiple of 32."""
    lead = values.shape[:-1]
    if bits == 4:
        eights = values.reshape(*lead, -1, 8)
        octets = np.empty((*eights.shape[:-1], 4), np.uint8)
        for byte in range(4):
            np.left_shift(eights[..., order[2 * byte + 1]], 4, out=octets[..., byte])
            octets[..., byte] |= eights[..., order[2 * byte]]
    elif bits == 8:
        octets = np.ascontiguousarray(values)
    else:
        stream = np.unpackbits(values[..., None], axis=-1, count=bits, bitorder="little")
        octets = np.packbits(stream.reshape(*lead, -1), axis=-1, bitorder="little")
    return octets.reshape(*lead, -1).view(np.int32)

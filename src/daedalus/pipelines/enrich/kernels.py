"""Mean pooling over offsets, compiled on first use.

Each row's vectors are added element by element in list order, in float32, and the sum divided once: the
result depends on the list alone, not on batches, threads or the machine's vector width.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def pool_single(vectors: Any, offsets: Any, slots: Any, out: Any, valid: Any) -> int:
    """Write the mean of each row's float32 vectors to the next row of `out`; return how many rows had any.

    Args:
        vectors: (k, dimension) float32.
        offsets: (rows + 1,); row `r` has the slots `offsets[r]` to `offsets[r + 1]`.
        slots: rows of `vectors`, -1 for an id without a vector.
        out: (rows, dimension) float32, filled from the top.
        valid: (rows,) booleans; False for a row without vectors, which takes no row of `out`.
    """
    dimension = vectors.shape[1]
    written = 0
    for row in range(valid.size):
        count = 0
        for at in range(offsets[row], offsets[row + 1]):
            slot = slots[at]
            if slot < 0:
                continue
            if count == 0:
                for d in range(dimension):
                    out[written, d] = np.float32(0)
            count += 1
            for d in range(dimension):
                out[written, d] += vectors[slot, d]
        valid[row] = count > 0
        if count > 0:
            divisor = np.float32(count)
            for d in range(dimension):
                out[written, d] /= divisor
            written += 1
    return written


def pool_half(bits: Any, offsets: Any, slots: Any, out: Any, valid: Any) -> int:
    """`pool_single` over float16 vectors, in and out as their uint16 bits.

    The compiler has no half floats on a CPU. Widening: exponent and mantissa move to their places in a float32,
    whose product with 2**112 corrects the exponent's bias exactly, subnormals included. Narrowing rounds to
    nearest, ties to even: in the bits for normal numbers, and for subnormals by adding 0.5, whose unit in the
    last place is the smallest half. Infinity and NaN are set.
    """
    dimension = bits.shape[1]
    rebias = np.float32(2.0**112)
    total = np.empty(dimension, dtype=np.float32)
    written = 0
    for row in range(valid.size):
        count = 0
        for at in range(offsets[row], offsets[row + 1]):
            slot = slots[at]
            if slot < 0:
                continue
            if count == 0:
                for d in range(dimension):
                    total[d] = np.float32(0)
            count += 1
            for d in range(dimension):
                half = np.uint32(bits[slot, d])
                moved = np.uint32((half & np.uint32(0x7FFF)) << np.uint32(13))
                finite = np.float32(moved.view(np.float32) * rebias).view(np.uint32)
                special = np.uint32(moved | np.uint32(0x7F800000))
                wide = special if (half & np.uint32(0x7C00)) == np.uint32(0x7C00) else finite
                signed = np.uint32(wide | ((half & np.uint32(0x8000)) << np.uint32(16)))
                total[d] += signed.view(np.float32)
        valid[row] = count > 0
        if count > 0:
            divisor = np.float32(count)
            for d in range(dimension):
                single = np.float32(total[d] / divisor).view(np.uint32)
                size = np.uint32(single & np.uint32(0x7FFFFFFF))
                tie = np.uint32((size >> np.uint32(13)) & np.uint32(1))
                normal = np.uint32(np.uint32(size + np.uint32(0xC8000FFF) + tie) >> np.uint32(13))
                shifted = np.float32(size.view(np.float32) + np.float32(0.5)).view(np.uint32)
                small = np.uint32(shifted - np.uint32(0x3F000000))
                huge = np.uint32(0x7E00) if size > np.uint32(0x7F800000) else np.uint32(0x7C00)
                narrow = small if size < np.uint32(0x38800000) else normal
                narrow = huge if size >= np.uint32(0x47800000) else narrow
                out[written, d] = np.uint16(narrow | ((single >> np.uint32(16)) & np.uint32(0x8000)))
            written += 1
    return written

"""Lists of what changes (docs/formats.md, "Lists")."""
import numpy as np

from .rans import FormatError


def even(bits, n):
    """A number below n."""
    b = (n - 1).bit_length()
    if not b:
        return 0
    shorter = (1 << b) - n
    v = bits.get(b - 1)
    if v >= shorter:
        v = (v << 1 | bits.get(1)) - shorter
    return (v + (n - shorter) // 2) % n


def rice(bits, k):
    if k > 14:
        return 0
    q = 0
    while q < 24 and bits.get(1):
        q += 1
    return bits.get(20) if q == 24 else q << k | bits.get(k)


def ascending(bits, n, below):
    """n numbers in order, all below `below`."""
    out, wait = [0] * n, [(0, n, 0, below)]
    while wait:
        first, end, low, high = wait.pop()
        while first < end:
            m = first + (end - first) // 2
            if high - low < end - first:
                raise FormatError("more numbers than there is room for")
            out[m] = low + m - first + even(bits, high - low - (end - first) + 1)
            wait.append((m + 1, end, out[m] + 1, high))
            end, high = m, out[m]
    return out


def spots(bits, rows, columns):
    """Rows, columns and differences of what changes in a matrix."""
    most, is_turned = rows * columns // 16 + 4096, bits.get(1)
    lines, length = (columns, rows) if is_turned else (rows, columns)
    n = even(bits, lines + 1)
    if n > most:
        raise FormatError("a list that is too long")
    line = ascending(bits, n, lines)
    often, much = bits.get(4), bits.get(4)
    many = [rice(bits, often) + 1 for _ in range(n)]
    if sum(many) > most or any(k > length for k in many):
        raise FormatError("a list that is too long")
    at, d = [], []
    for i, k in zip(line, many):
        for place in ascending(bits, k, length):
            at.append((i, place))
            minus = bits.get(1)
            size = rice(bits, much) + 1
            d.append(-size if minus else size)
    at = np.array(at, np.int64).reshape(-1, 2)
    return at[:, is_turned], at[:, 1 - is_turned], np.array(d, np.int64)

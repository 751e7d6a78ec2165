"""Integer differences of plain types (docs/formats.md, "Integer differences" and "Plain types"); blocks.py has the quantized ones."""
import numpy as np

from .rans import CONTEXTS, FormatError, Reader, differences, raw_string, symbols, unzigzag
from .zeros import zeros

F32, F16, BF16 = 0, 1, 30
# Width in bytes, and the bit where the exponent begins (0: an integer).
WORDS = {28: (8, 55), F32: (4, 23), F16: (2, 10), BF16: (2, 7), 1005: (1, 3), 1006: (1, 2),
         24: (1, 0), 25: (2, 0), 26: (4, 0), 27: (8, 0), 1000: (1, 0), 1001: (2, 0), 1002: (4, 0), 1003: (8, 0), 1004: (1, 0)}


def stripes(n, row, least):
    """Elements (or blocks) of each stripe of a chunk of n: whole rows where they are long enough."""
    size = row if least <= row < n else n
    return np.minimum(np.arange(n) // size, (n - 1) // size), (n + size - 1) // size, size


def contexts(r, x, row, least, step):
    """The context of each element (block) of scale x."""
    stripe, count, _ = stripes(len(x), row, least)
    kind, base = r.u8(), r.svarint()
    if kind > 1 or not -4096 <= base <= 4096:
        raise FormatError("levels of no known kind")
    level = symbols(r, np.zeros(count, np.int64)).astype(np.int64) if kind else np.zeros(count, np.int64)
    return np.clip(x - step * level[stripe] + base, 0, CONTEXTS - 1)


def guess(r, side, rows, columns):
    """The guess for each element, exact in float32; None where there is none."""
    if not len(side) or rows < 16 or not 16 <= columns <= 8192:
        return None
    s = Reader(side)
    ranks = s.u8()
    if not 1 <= ranks <= 16:
        raise FormatError("a side of no known rank")
    v = unzigzag(symbols(s, np.repeat(np.arange(ranks), columns))).reshape(ranks, columns)
    rank = r.u8()
    if s.left() or rank > ranks:
        raise FormatError("more factors than the side has")
    if not rank:
        return None
    unit, shift = r.u8(), r.svarint()
    if not 16 <= unit <= 31 or not -60 <= shift <= 60:
        raise FormatError("a guess out of bounds")
    u = unzigzag(symbols(r, np.tile(np.arange(rank), rows))).reshape(rows, rank)
    return np.ldexp((u @ v[:rank] * unit).astype(np.float32), shift)


def as_float(words, kind):
    if kind == BF16:
        return (words.astype(np.uint32) << 16).view(np.float32)
    return words.view(np.float32) if kind == F32 else words.view(np.float16).astype(np.float32)


def as_words(x, kind):
    """Rounded to the type, ties to even; x is finite or the old number itself."""
    if kind == F32:
        return x.view(np.uint32)
    if kind == F16:
        with np.errstate(over="ignore"):
            return x.astype(np.float16).view(np.uint16)
    u = x.view(np.uint32)
    return ((u + np.uint32(0x7FFF) + (u >> 16 & 1)) >> 16).astype(np.uint16)


def with_guess(words, kind, g):
    x = as_float(words, kind)
    with np.errstate(over="ignore", invalid="ignore"):
        moved = as_words((x + g.ravel()[:len(x)]).astype(np.float32), kind)
    return np.where(np.isfinite(x), moved, words)


def gaps(raw, count, m):
    """Golomb codes with parameter m."""
    b = (m - 1).bit_length()
    t, out = (1 << b) - m, []
    for _ in range(count):
        q = 0
        while raw.get(1):
            q += 1
        rest = 0
        if b:
            rest = raw.get(b - 1)
            if rest >= t:
                rest = (rest << 1 | raw.get(1)) - t
        out.append(q * m + rest)
    return out


def listed(r, key):
    """Places of the elements that a sparse chunk lists."""
    n, runs, first, places = len(key), r.u8() + 1, 0, []
    if runs > 8:
        raise FormatError("too many runs")
    for _ in range(runs):
        last, m = r.u8(), r.varint()
        if not first <= last < CONTEXTS:
            raise FormatError("runs out of order")
        mine = np.flatnonzero((key >= first) & (key <= last))
        if m == 1:
            places.append(mine)
        elif m:
            count = r.varint()
            if not 1 <= count <= n // 4 or m > (1 << 20) + 1:
                raise FormatError("a run out of bounds")
            raw = raw_string(r)
            at = np.cumsum(np.array(gaps(raw, count, m - 1), np.int64) + 1) - 1
            raw.end()
            if at[-1] >= len(mine):
                raise FormatError("a gap past the end")
            places.append(mine[at])
        first = last + 1
    if first != CONTEXTS:
        raise FormatError("runs do not end with the last context")
    at = np.sort(np.concatenate(places)) if places else np.zeros(0, np.int64)
    if len(at) > n // 4:
        raise FormatError("too many are listed")
    return at


def buckets(r, key, width, begin=3):
    sym = symbols(r, key)
    raw = raw_string(r)
    d = differences(sym, raw, width, begin)
    raw.end()
    return d


def changes(r, key, width):
    """The difference of each element."""
    mode = r.u8()
    if mode in (0, 2):
        return buckets(r, key, width, 5 if mode else 3)
    if mode != 1:
        raise FormatError("a mode that is not known")
    at, d, how = listed(r, key), np.zeros(len(key), np.int64), r.u8()
    if how == 0:
        raw = raw_string(r)
        d[at] = [-1 if raw.get(1) else 1 for _ in at]
        raw.end()
    elif how == 1:
        d[at] = buckets(r, key[at], width)
    else:
        raise FormatError("a way that is not known")
    return d


def words(r, kind, row_bytes, old, side):
    form = r.u8()
    shift, given = form & 63, kind
    width, exponent_at = WORDS[kind]
    if form & 128 or shift >= 8 * width or (form & 64 and kind not in (F16, F32)):
        raise FormatError("a form that is not known")
    old = np.frombuffer(old, f"<u{width}")
    n, row = len(old), row_bytes // width if row_bytes % width == 0 else 0
    if form & 64:
        old, kind = (as_float(old, kind).view(np.uint32) >> 16).astype(np.uint16), BF16
        width, exponent_at = 2, 7
    if kind in (F32, F16, BF16):
        _, count, size = stripes(n, row, 64)
        g = guess(r, side, count, size)
        old = old if g is None else with_guess(old, kind, g)
        z = zeros(r, count) if g is None else None
        if z:
            if z.on_grid:
                raise FormatError("a grid of numbers that have none")
            sign = 1 << 8 * width - 1
            gone = z.mark(old.astype(np.int64) & sign - 1, np.arange(n) // size)
            old = np.where(gone, old & (sign if z.keeps_sign else 0), old).astype(old.dtype)
    bits, full = 8 * width, (1 << 8 * width) - 1
    x = np.zeros(n, np.int64)
    if exponent_at:
        x = 2 * ((old >> exponent_at & ((1 << bits - 1 - exponent_at) - 1)).astype(np.int64) & 255)
    d = changes(r, contexts(r, x, row, 64, 1), width)
    a = old.astype(np.uint64)
    top = np.uint64(1 << bits - 1)
    if exponent_at:
        a = np.where(a & top, ~a & np.uint64(full), a | top)
    with np.errstate(over="ignore"):
        b = ((a >> np.uint64(shift)) + d.astype(np.uint64)) << np.uint64(shift) & np.uint64(full)
    if exponent_at:
        b = np.where(b & top, b ^ top, ~b & np.uint64(full))
    neu = (b >> np.uint64(shift) << np.uint64(shift)).astype(f"<u{width}")
    if form & 64:
        with np.errstate(over="ignore"):
            neu = as_words(as_float(neu, BF16), given)
    return neu.astype(f"<u{WORDS[given][0]}").tobytes()


def decode(kind, row_bytes, payload, old, side=b""):
    """The bytes of a chunk from its payload and the same place of the source."""
    r = Reader(payload)
    if kind in WORDS:
        out = words(r, kind, row_bytes, old, side)
    else:
        from . import blocks
        out = blocks.decode(r, kind, row_bytes, old, side)
    if r.left():
        raise FormatError("bytes are left over in a payload")
    return out

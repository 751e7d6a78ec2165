"""Adapter chunks (docs/formats.md, "Adapter" and "What skiff merge writes"): rows changed by a low-rank product."""
import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from . import integer
from .rans import FormatError, Reader, differences, raw_string, symbols

FORMS = ((8, 23, 0), (5, 10, 1), (8, 7, 0))  # exponent, mantissa, top bits of it in the symbol
PLAIN = {0: 4, 1: 2, 30: 2}
# Of a block of 32: bytes, where codes begin, whether it has high bits, lowest code, highest, the code that stands for 0.
GRIDS = {8: (34, 2, False, -128, 127, 0), 2: (18, 2, False, 0, 15, 8), 3: (20, 4, False, 0, 15, 0),
         6: (22, 2, True, 0, 31, 16), 7: (24, 4, True, 0, 31, 0)}


def numbers(r, n):
    head = r.u8()
    form, kept = head & 3, head >> 2
    if form > 2 or not FORMS[form][2] <= kept <= FORMS[form][1]:
        raise FormatError("numbers of no known form")
    exponent, mantissa, top = FORMS[form]
    sym = symbols(r, np.zeros(n, np.int64)).astype(np.uint32)
    if (sym >> exponent + top).any() or ((sym >> top) == (1 << exponent) - 1).any():
        raise FormatError("no such exponent")
    raw = raw_string(r)
    rest = np.array([(raw.get(1), raw.get(kept - top)) for _ in range(n)], np.uint32).reshape(n, 2)
    raw.end()
    u = rest[:, 0] << exponent + mantissa | sym << mantissa - top | rest[:, 1] << mantissa - kept
    return integer.as_float(u if form == 0 else u.astype(np.uint16), (0, 1, 30)[form]).astype(np.float32)


def matrix_a(r, inputs):
    rank = r.varint()
    scale = np.frombuffer(r.take(4), "<f4")[0]
    if not 1 <= rank <= 256 or rank * inputs > 1 << 20 or not abs(scale) <= 1e30:
        raise FormatError("factors out of bounds")
    return scale, numbers(r, rank * inputs).reshape(rank, inputs)


def values(kind, rows):
    return dequantize(rows, GGMLQuantizationType(kind)).astype(np.float32)


def anew(kind, x):
    if kind in PLAIN:
        return integer.as_words(np.ascontiguousarray(x), kind).view(np.uint8).reshape(len(x), -1)
    return quantize(np.ascontiguousarray(x), GGMLQuantizationType(kind)).view(np.uint8).reshape(len(x), -1)


def carried(kind, rows, x):
    """Codes on the grid that stands, the error carried along each row."""
    size, at, is_high, lowest, highest, zero = GRIDS[kind]
    out = rows.copy()
    carry = np.zeros(len(rows), np.float32)
    for b in range(rows.shape[1] // size):
        block = out[:, b * size:(b + 1) * size]
        d = block[:, :2].copy().view("<f2").astype(np.float32).ravel()
        m = block[:, 2:4].copy().view("<f2").astype(np.float32).ravel() if at == 4 else np.zeros(len(rows), np.float32)
        flat, wants = d == 0, x[:, 32 * b:32 * b + 32]
        code = np.zeros((len(rows), 32), np.int64)
        before = carry.copy()
        with np.errstate(all="ignore"):
            for i in range(32):
                want = wants[:, i] + carry
                c = (want - m) / d + np.float32(zero - lowest) + np.float32(0.5)
                steps = np.where(c > 0, np.minimum(c, np.float32(highest - lowest)), 0)
                code[:, i] = lowest + np.nan_to_num(steps).astype(np.int64)
                left = want - (d * (code[:, i] - zero).astype(np.float32) + m)
                carry = np.clip(left, -np.abs(d), np.abs(d)).astype(np.float32)
        raw = (code & 15).astype(np.uint8)
        fresh = block.copy()
        if kind == 8:
            fresh[:, 2:] = code.astype(np.int8).view(np.uint8)
        else:
            if is_high:
                high = ((code >> 4).astype(np.uint32) << np.arange(32, dtype=np.uint32)).sum(axis=1).astype("<u4")
                fresh[:, at:at + 4] = high.view(np.uint8).reshape(-1, 4)
            fresh[:, -16:] = raw[:, :16] | raw[:, 16:] << 4
        for i in np.flatnonzero(flat):
            is_same = (wants[i] == m[i]).all()
            fresh[i] = block[i] if is_same else anew(kind, wants[i:i + 1])[0]
            carry[i] = before[i] if is_same else 0
        out[:, b * size:(b + 1) * size] = fresh
    return out


def nudged(r, kind, x, merged):
    base = r.svarint()
    if not -4096 <= base <= 4096:
        raise FormatError("a base out of bounds")
    u, w = x.ravel().view(np.uint32).astype(np.int64), 16 if kind == 30 else 13
    d = (u & (1 << w) - 1) - (1 << w - 1)
    m = np.abs(d) << 16 - w | 1
    k = np.floor(np.log2(m)).astype(np.int64)
    h = np.where(k > 0, m >> np.maximum(k - 1, 0) & 1, 0)
    key = np.clip(2 * (k + (u >> 23 & 255)) + h - base, 0, 47)
    sym = symbols(r, key)
    raw = raw_string(r)
    by = differences(sym, raw, 2)
    raw.end()
    by = np.where((d < 0) != (u >> 31 > 0), by, -by)
    a = merged.view("<u2").ravel().astype(np.int64)
    b = np.where(a & 0x8000, ~a & 0xFFFF, a | 0x8000) + by & 0xFFFF
    return np.where(b & 0x8000, b ^ 0x8000, ~b & 0xFFFF).astype("<u2").tobytes()


def decode(kind, row_bytes, payload, old, side):
    r = Reader(payload)
    head = r.u8()
    rule, fix = head & 15, head >> 4
    if rule > 2 or fix > 2 or len(old) % row_bytes:
        raise FormatError("an adapter chunk of no known kind")
    rows = np.frombuffer(old, np.uint8).reshape(-1, row_bytes)
    was = values(kind, rows.view({4: "<f4", 2: "<f2"}[PLAIN[kind]]) if kind in (0, 1) else rows)
    inputs = was.shape[1]
    if len(side):
        s = Reader(side)
        scale, a = matrix_a(s, inputs)
        if s.left():
            raise FormatError("bytes are left over in a side")
    else:
        scale, a = matrix_a(r, inputs)
    b = numbers(r, len(rows) * len(a)).reshape(len(rows), len(a))
    c = np.zeros_like(was)
    for k in range(len(a)):
        c = c + b[:, k:k + 1] * a[k]
    c = c * scale
    if rule == 2:
        c = values(kind, anew(kind, c).view({4: "<f4", 2: "<f2"}[PLAIN[kind]]) if kind in (0, 1) else anew(kind, c))
    x = was + c
    merged = carried(kind, rows, x) if rule == 0 and kind not in PLAIN else anew(kind, x)
    if fix == 1:
        return integer.decode(kind, row_bytes, r.take(r.left()), merged.tobytes())
    out = nudged(r, kind, x, merged) if fix == 2 and PLAIN.get(kind) == 2 else merged.tobytes()
    if r.left():
        raise FormatError("bytes are left over in a payload")
    return out

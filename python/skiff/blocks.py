"""Integer differences of quantized blocks (docs/formats.md, "Blocks", "Changes", "Codes that moved", "Lists", "Zeros")."""
import numpy as np

from .integer import guess
from .rans import CONTEXTS, Bits, FormatError, Reader, differences, raw_string, symbols, unzigzag
from .spots import spots
from .zeros import zeros

K4 = "K4"
# ggml's number: bytes of a block, places of halves, fields: codes, codes in a unit, bits, bias, planes (byte, bits, run), step and offset.
D, DM, NONE, TWO, ONE, DC, DC_MC, DC_MC16, DC32 = range(9)
Q8_0 = 8
LISTED = 2
TYPES = {
    2: (18, (0,), ((32, 32, 4, 8, ((2, 4, 16),), D),)),
    3: (20, (0, 2), ((32, 32, 4, 0, ((4, 4, 16),), DM),)),
    6: (22, (0,), ((32, 32, 5, 16, ((6, 4, 16), (2, 1, 1)), D),)),
    7: (24, (0, 2), ((32, 32, 5, 0, ((8, 4, 16), (4, 1, 1)), DM),)),
    8: (34, (0,), ((32, 32, 8, 0, ((2, 8, 32),), D),)),
    9: (36, (0, 2), ((32, 32, 8, 0, ((4, 8, 32),), NONE),)),
    20: (18, (0,), ((32, 32, 4, 0, ((2, 4, 16),), NONE),)),
    39: (17, (), ((1, 1, 8, 0, ((0, 8, 1),), ONE), (32, 32, 4, 0, ((1, 4, 16),), ONE))),
    10: (84, (80, 82), ((32, 16, 4, 0, ((0, 4, 16),), TWO), (256, 16, 2, 0, ((16, 2, 32),), DC_MC16))),
    11: (110, (108,), ((16, 16, 6, 32, ((96, 4, 8), (104, 2, 4)), D), (256, 16, 3, 4, ((32, 2, 32), (0, 1, 32)), DC32))),
    12: (144, (0, 2), ((16, 8, 6, 0, K4, TWO), (256, 32, 4, 0, ((16, 4, 32),), DC_MC))),
    13: (176, (0, 2), ((16, 8, 6, 0, K4, TWO), (256, 32, 5, 0, ((48, 4, 32), (16, 1, 32)), DC_MC))),
    14: (210, (208,), ((16, 16, 8, 0, ((192, 8, 16),), D), (256, 16, 6, 32, ((0, 4, 64), (128, 2, 32)), DC))),
    23: (136, (0,), ((8, 8, 6, 32, ((4, 4, 1), (2, 2, 1)), D), (256, 32, 4, 0, ((8, 4, 16),), NONE))),
    35: (66, (64,), ((256, 32, 2, 1, ((0, 2, 32),), D),)),
    40: (36, (), ((4, 1, 8, 0, ((0, 8, 4),), ONE), (64, 16, 4, 0, ((4, 4, 8),), ONE))),
    34: (54, (52,), ((8, 8, 4, 0, ((48, 4, 4),), NONE), (48, 8, 8, 0, ((0, 8, 48),), NONE))),
    16: (66, (0,), ((64, 8, 8, 0, ((2, 8, 64),), NONE),)),
    17: (74, (0,), ((72, 8, 8, 0, ((2, 8, 72),), NONE),)),
    22: (82, (0,), ((80, 8, 8, 0, ((2, 8, 80),), NONE),)),
    18: (98, (0,), ((96, 8, 8, 0, ((2, 8, 96),), NONE),)),
    21: (110, (0,), ((8, 8, 4, 0, ((106, 4, 4),), NONE), (104, 8, 8, 0, ((2, 8, 104),), NONE))),
    19: (50, (0,), ((48, 8, 8, 0, ((2, 8, 48),), NONE),)),
    29: (56, (), ((56, 8, 8, 0, ((0, 8, 56),), ONE),)),
    41: (18, (0,), ((16, 8, 8, 0, ((2, 8, 16),), NONE),)),
}
PARTS = np.array([5, 5, 4, 4, 3, 3, 2, 1, 0, 1, 2, 3, 3, 4, 4, 5])
BY_WEIGHT = np.array(sorted(range(256), key=lambda v: (bin(v).count("1"), v)))
WEIGHT = np.array([bin(v).count("1") for v in range(256)])


# ---- codes in their bytes
def k4_get(q):
    q = q[:, 4:16].astype(np.int64)
    c = np.zeros((len(q), 16), np.int64)
    for k in range(4):
        c[:, k], c[:, 8 + k] = q[:, k] & 63, q[:, 4 + k] & 63
        c[:, 4 + k] = q[:, 8 + k] & 15 | q[:, k] >> 6 << 4
        c[:, 12 + k] = q[:, 8 + k] >> 4 | q[:, 4 + k] >> 6 << 4
    return c


def k4_put(block, c):
    for k in range(4):
        block[:, 4 + k] = c[:, k] & 63 | c[:, 4 + k] >> 4 << 6
        block[:, 8 + k] = c[:, 8 + k] & 63 | c[:, 12 + k] >> 4 << 6
        block[:, 12 + k] = c[:, 4 + k] & 15 | (c[:, 12 + k] & 15) << 4


def place(plane, n):
    """Byte and lowest bit of each of n elements."""
    byte, bits, run = plane
    p, e = 8 // bits, np.arange(n)
    return byte + e // (run * p) * run + e % run, bits * (e // run % p)


def get_codes(block, codes, bits, planes):
    if planes == K4:
        return k4_get(block)
    out, above = np.zeros((len(block), codes), np.int64), 0
    for plane in planes:
        at, low = place(plane, codes)
        out |= (block[:, at].astype(np.int64) >> low & (1 << plane[1]) - 1) << above
        above += plane[1]
    return np.where(out > 127, out - 256, out) if bits == 8 else out


def put_codes(block, c, planes):
    if planes == K4:
        return k4_put(block, c)
    for plane in planes:
        at, low = place(plane, c.shape[1])
        for e in range(c.shape[1]):
            mask = (1 << plane[1]) - 1 << low[e]
            block[:, at[e]] = block[:, at[e]] & (255 ^ mask) | (c[:, e] << low[e] & mask)
        c = c >> plane[1]
    return None


# ---- what codes stand for
def half(block, at):
    h = block[:, at:at + 2].copy().view("<f2").astype(np.float32)
    return np.where(np.isfinite(h), h, np.float32(0))


def steps(block, halves, scales, field):
    """Step and offset of each unit, float32 [blocks][units]."""
    codes, unit, _, bias, _, how = field
    units, zero = codes // unit, np.float32(0)
    h = [half(block, at) for at in halves]
    with np.errstate(all="ignore"):
        if how in (D, DM, NONE):
            d, m = np.repeat(h[0], units, 1), np.repeat(h[1], units, 1) if how == DM else zero
        elif how == ONE:
            d, m = np.ones((len(block), units), np.float32), zero
        elif how == TWO:
            d, m = np.concatenate(h, 1), zero
        else:
            c = scales.astype(np.float32)
            d = h[0] * (c[:, :units] - np.float32(32) if how == DC32 else c[:, :units])
            m = -(h[1] * c[:, units:2 * units]) if how in (DC_MC, DC_MC16) else zero
        if bias:
            m = m - d * np.float32(bias)
    return d, np.broadcast_to(m, d.shape).astype(np.float32)


NO_ZERO = 1 << 15


def zero_codes(step, offset, bits):
    """The codes next to zero."""
    lowest, highest = (-128, 127) if bits == 8 else (0, (1 << bits) - 1)
    with np.errstate(all="ignore"):
        x = -offset / step
        good = (x > -1000) & (x < 1000)
        return np.where(good, np.clip(np.rint(np.where(good, x, 0)), lowest, highest), NO_ZERO).astype(np.int64)


def bits_of(x):
    return np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.int64)


def is_moved(field, old_steps, new_steps, is_other):
    """Units whose codes are foreseen on another grid, [blocks][units]."""
    if field[0] == field[1]:
        return is_other[:, None]
    return (bits_of(old_steps[0]) != bits_of(new_steps[0])) | (bits_of(old_steps[1]) != bits_of(new_steps[1]))


# ---- differences
def un_negated(d, stripe):
    out, before, where = d.copy(), 0, -1
    for i in range(len(d)):
        if stripe[i] == where and before < 0:
            out[i] = -out[i]
        before, where = out[i], stripe[i]
    return out


def changes(r, key, stripe, unit):
    """The differences of units in contexts `key`, [units][unit]."""
    n, mode = len(key), r.u8()
    if mode == 0:
        return np.zeros((n, unit), np.int64)
    if mode == 1:
        sym = symbols(r, np.repeat(key, unit))
        raw = raw_string(r)
        out = differences(sym, raw, 1)
        raw.end()
        return out.reshape(n, unit)
    if mode > 3 or unit == 1:
        raise FormatError("a mode that is not known")
    if mode == 2:
        mask, size = symbols(r, np.repeat(key, unit // 4)), 4
    else:
        which = symbols(r, key)
        has = (which[:, None] >> np.arange(unit // 8) & 1).ravel().astype(bool)
        if (which >> unit // 8).any():
            raise FormatError("a mask has more than its bits")
        mask, size = np.zeros(n * unit // 8, np.int64), 8
        mask[has] = BY_WEIGHT[symbols(r, np.repeat(key, unit // 8)[has])]
        if (mask[has] == 0).any():
            raise FormatError("an empty mask")
    mask = np.asarray(mask, np.int64)
    if (mask >> size).any():
        raise FormatError("a mask has more than its bits")
    at = np.flatnonzero((mask[:, None] >> np.arange(size) & 1).ravel())
    sym = symbols(r, key[at // unit])
    raw = raw_string(r)
    d = differences(sym, raw, 1)
    raw.end()
    out = np.zeros(n * unit, np.int64)
    out[at] = un_negated(d, stripe[at // unit])
    return out.reshape(n, unit)


def moved_codes(r, old, key, bits, grids, g):
    """New codes of units that moved; `grids`: old and new steps and offsets of each, or None where codes stand for nothing known."""
    lowest, highest = (-128, 127) if bits == 8 else (0, (1 << bits) - 1)
    ratio, offset, slope = (np.full(len(old), v, np.float32) for v in (1, 0, 0))
    with np.errstate(all="ignore"):
        if grids:
            (d, m), (e, o) = grids
            a, b, c = d / e, (m - o) / e, np.float32(1) / e
            good = (a > -1e4) & (a < 1e4) & (b > -1e6) & (b < 1e6) & (c > -1e9) & (c < 1e9)
            ratio, offset, slope = np.where(good, a, ratio), np.where(good, b, offset), np.where(good, c, slope)
        x = ratio[:, None] * old.astype(np.float32) + offset[:, None]
        if g is not None:
            x = x + g * slope[:, None]
    x = np.where(x > -1000, np.minimum(x, np.float32(1000)), np.float32(-1000))
    t = np.rint(np.float32(16) * x).astype(np.int64) + 8
    guess_, part, negated = np.clip(t >> 4, lowest, highest), PARTS[t & 15], (t & 15) < 8
    c = np.searchsorted([17, 19, 21, 23, 25, 28], key, side="right")[:, None] * np.ones(old.shape, np.int64)
    is_low, is_high = old <= (-127 if bits == 8 else 0), old >= highest
    end = 42 + 2 * ((c >= 2).astype(int) + (c >= 5)) + (guess_ != old)
    is_end = is_low | is_high
    context = np.where(is_end, end, part + 6 * c)
    sym = symbols(r, context.ravel())
    raw = raw_string(r)
    diff = differences(sym, raw, 1).reshape(old.shape)
    raw.end()
    diff = np.where(np.where(is_end, is_high, negated), -diff, diff)
    new = np.where(is_end, old, guess_) + diff & (1 << bits) - 1
    return np.where(new > 127, new - 256, new) if bits == 8 else new


def wide_buckets(r, key):
    """Differences of halves."""
    sym = symbols(r, key).astype(np.int64)
    raw, d, large = raw_string(r), unzigzag(sym), sym >= 95
    if (sym == 95).any():
        raise FormatError("a wide bucket that nothing falls in")
    d[large] = differences(sym[large] - 76, raw, 2)
    raw.end()
    return d


class Chunk:
    def __init__(self, r, kind, row_bytes, old, side):
        self.r, (size, self.halves, self.fields) = r, TYPES[kind]
        self.old, n = np.frombuffer(old, np.uint8).reshape(-1, size), len(old) // size
        each = self.fields[-1][0]
        row = row_bytes // size * each if row_bytes % size == 0 else 0
        size_of = row if 128 <= row < n * each else n * each
        self.stripe = np.arange(n) * each // size_of
        rows = (n * each + size_of - 1) // size_of
        self.g = guess(r, side, rows, size_of) if self.fields[-1][5] != NONE else None
        if self.g is not None:
            self.g = self.g.ravel()[:n * each].reshape(n, each)
        self.zeros = zeros(r, rows) if self.fields[-1][5] != NONE and self.g is None else None
        if self.zeros:
            self.prune()
        self.new = self.old.copy()
        kind, self.rows, self.row_blocks = r.u8(), rows, size_of // each
        self.is_listed = kind == LISTED and self.g is None
        if self.is_listed:
            return
        self.base = r.svarint()
        if kind > 1 or not -4096 <= self.base <= 4096:
            raise FormatError("levels of no known kind")
        self.level = symbols(r, np.zeros(rows, np.int64)).astype(np.int64) if kind else np.zeros(rows, np.int64)

    def prune(self):
        """The old codes that become zero first."""
        field = self.fields[-1]
        codes, unit, bits, _, planes, how = field
        if self.zeros.keeps_sign or (self.zeros.on_grid and how != DM):
            raise FormatError("zeros that this type does not have")
        scales = get_codes(self.old, self.fields[0][0], self.fields[0][2], self.fields[0][4]) if len(self.fields) > 1 else None
        step, offset = (np.repeat(x, unit, 1) for x in steps(self.old, self.halves, scales, field))
        code, zero = get_codes(self.old, codes, bits, planes), zero_codes(step, offset, bits)
        with np.errstate(all="ignore"):
            size = bits_of(step * code.astype(np.float32) + offset) & 0x7FFFFFFF
        size[code == zero] = 0
        gone = self.zeros.mark(size.ravel(), np.repeat(self.stripe, codes)).reshape(size.shape) & (zero != NO_ZERO)
        self.old = self.old.copy()
        put_codes(self.old, np.where(gone, zero, code), planes)

    def half_base(self, which, k):
        """What the differences of halves count from in some blocks, whose halves before are new."""
        old = self.old[which][:, self.halves[k]:self.halves[k] + 2].copy().view("<u2").ravel().astype(np.int64)
        if not (self.zeros and self.zeros.on_grid):
            return old
        if k == 0:
            return old + 15 & 0xFFF0
        d, m = half(self.new[which], self.halves[0])[:, 0], half(self.old[which], self.halves[1])[:, 0]
        zero = zero_codes(d, m, self.fields[0][2])
        with np.errstate(all="ignore"):
            return np.where(zero == NO_ZERO, old, (-(d * zero.astype(np.float32))).astype(np.float16).view(np.uint16).astype(np.int64))

    def do_lists(self):
        """Everything that changes, against the old halves and codes."""
        bits = Bits(Reader(self.r.take(self.r.left())))
        lists = [(1, 16, at) for at in self.halves] + [(f[0], f[2], f) for f in self.fields]
        for each, width, what in lists:
            row, column, d = spots(bits, self.rows, self.row_blocks * each)
            block = row * self.row_blocks + column // each
            if (block >= len(self.old)).any():
                raise FormatError("a change past the end")
            if width == 16:
                self.move(block, what, d)
                continue
            code = get_codes(self.old, each, width, what[4])
            code[block, column % each] = v = code[block, column % each] + d & (1 << width) - 1
            code[block, column % each] = np.where(v > 127, v - 256, v)
            put_codes(self.new, code, what[4])
        bits.end()

    def contexts(self, step, base, stripe):
        if not -4096 <= base <= 4096:
            raise FormatError("a base out of bounds")
        return np.clip((bits_of(step) >> 21 & 1023) - 448 - 2 * self.level[stripe] + self.base + base, 0, CONTEXTS - 1)

    def move(self, which, at, d, old=None):
        """Adds d to the halves of some blocks, or to others."""
        if old is None:
            old = self.old[which][:, at:at + 2].copy().view("<u2").ravel().astype(np.int64)
        self.new[which, at:at + 2] = (old + d & 0xFFFF).astype("<u2").view(np.uint8).reshape(-1, 2)

    def guessed_halves(self, key):
        """Differences of the halves of all blocks of Q8_0, in the context of how far the guess goes at their largest code."""
        codes = get_codes(self.old, 32, 8, self.fields[0][4])
        is_peak = np.abs(codes) >= 127
        peak, every = is_peak.argmax(1), np.arange(len(codes))
        g = np.where(is_peak.any(1), self.g[every, peak], np.float32(0)).astype(np.float32)
        e = (bits_of(np.float32(127) * half(self.old, self.halves[0])[:, 0]) >> 23 & 255) - 127
        w = np.ldexp(np.ones(len(codes)), np.maximum(e, -113) - 12)
        reach = np.searchsorted([3, 6, 10, 14, 22], np.abs(g.astype(np.float64)) / w, side="right")
        c = np.searchsorted([17, 19, 21, 23, 25, 28], key, side="right")
        d = wide_buckets(self.r, 6 * c + np.where(e < -114, 0, reach))
        return np.where((g != 0) & ((g < 0) != (codes[every, peak] < 0)), -d, d)

    def do_halves(self):
        """New halves; which blocks have one that differs."""
        n, r = len(self.old), self.r
        changed = np.zeros(n, bool)
        if not self.halves or r.u8() == 0:
            return changed
        key = self.contexts(half(self.old, self.halves[0])[:, 0], r.svarint(), self.stripe)
        if self.g is not None and self.fields is TYPES[Q8_0][2]:
            d = self.guessed_halves(key)
            self.move(np.ones(n, bool), self.halves[0], d)
            return d != 0
        mask = symbols(r, key[::4]).astype(np.int64)
        bits = (mask[:, None] >> np.arange(4) & 1).ravel()
        if (mask >> 4).any() or bits[n:].any():
            raise FormatError("a mask has more than its bits")
        changed = bits[:n].astype(bool)
        before = np.zeros(int(changed.sum()), bool)
        for k, at in enumerate(self.halves):
            d = wide_buckets(r, key[changed] // 2 + np.where(before, 24, 0))
            self.move(changed, at, d, self.half_base(changed, k))
            before = d != 0
        return changed

    def do_field(self, field, is_other, scales):
        """New codes of one field; old and new."""
        codes, unit, bits, _, planes, how = field
        n, units, is_last = len(self.old), codes // unit, field is self.fields[-1]
        old = get_codes(self.old, codes, bits, planes)
        was, now = steps(self.old, self.halves, scales[0], field), steps(self.new, self.halves, scales[1], field)
        stripe = np.repeat(self.stripe, units)
        key = self.contexts(was[0].ravel(), self.r.svarint(), stripe)
        moved = np.broadcast_to(is_moved(field, was, now, is_other), (n, units)).ravel()
        g = self.g.reshape(-1, unit) if is_last and self.g is not None else None
        if g is not None:
            moved = np.ones(n * units, bool)
        flat = old.reshape(-1, unit)
        new, stay = flat.copy(), ~moved
        if stay.any():
            d = changes(self.r, key[stay], stripe[stay], unit)
            if bits == 8 and unit == 32:
                size = np.abs(flat[stay])
                order = np.argsort((size >= 32).astype(int) + (size >= 64), axis=1, kind="stable")
                back = np.zeros_like(d)
                np.put_along_axis(back, order, d, 1)
                d = back
            v = flat[stay] + d & (1 << bits) - 1
            new[stay] = np.where(v > 127, v - 256, v) if bits == 8 else v
        if moved.any():
            grids = None if how == NONE else [tuple(x.ravel()[moved] for x in s) for s in (was, now)]
            new[moved] = moved_codes(self.r, flat[moved], key[moved], bits, grids, None if g is None else g[moved])
        put_codes(self.new, new.reshape(n, codes), planes)
        return old, new.reshape(n, codes)


def decode(r, kind, row_bytes, old, side):
    if kind not in TYPES or len(old) % TYPES[kind][0]:
        raise FormatError("a type that is not known")
    c = Chunk(r, kind, row_bytes, old, side)
    if c.is_listed:
        c.do_lists()
        return c.new.tobytes()
    is_other, scales = c.do_halves(), (None, None)
    for field in c.fields:
        scales = c.do_field(field, is_other, scales)
        is_other = is_other | (scales[0] != scales[1]).any(axis=1)
    return c.new.tobytes()

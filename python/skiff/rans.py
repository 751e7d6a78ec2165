"""Symbols in contexts, coded by interleaved static rANS (docs/formats.md, "Symbols"), and the strings of bits around them.

It follows the format's page and shares nothing with the C code that it checks.
"""
import numpy as np

CONTEXTS = 48


class FormatError(ValueError):
    """What no encoder writes."""


class Reader:
    """Bytes, read from the front."""

    def __init__(self, data):
        self.data, self.at = memoryview(data), 0

    def take(self, n):
        if n < 0 or n > len(self.data) - self.at:
            raise FormatError("it ends too early")
        self.at += n
        return self.data[self.at - n:self.at]

    def u8(self):
        return self.take(1)[0]

    def uint(self, n):
        return int.from_bytes(self.take(n), "little")

    def varint(self):
        value = 0
        for i in range(10):
            byte = self.u8()
            value |= (byte & 127) << 7 * i
            if byte < 128:
                if (i and not byte) or value >> 64:
                    raise FormatError("a number is not in its shortest form")
                return value
        raise FormatError("a number is too long")

    def svarint(self):
        z = self.varint()
        return z >> 1 ^ -(z & 1)

    def left(self):
        return len(self.data) - self.at


class Bits:
    """A string of bits, the lowest of a byte first, in a reader's bytes."""

    def __init__(self, reader):
        self.reader, self.acc, self.have = reader, 0, 0

    def get(self, n):
        while self.have < n:
            self.acc |= self.reader.u8() << self.have
            self.have += 8
        value = self.acc & ((1 << n) - 1)
        self.acc >>= n
        self.have -= n
        return value

    def end(self):
        if self.acc or self.have >= 8:
            raise FormatError("bits are left over")


def raw_string(reader):
    return Bits(Reader(reader.take(reader.varint())))


def _frequencies(bits, precision):
    freq, last = [0] * 256, bits.get(8)
    s = 0
    while s <= last:
        length = bits.get(4)
        if length == 0:
            s += 1 + bits.get(4)
        else:
            freq[s] = (1 << (length - 1)) | bits.get(length - 1)
            s += 1
    if s != last + 1 or sum(freq) != 1 << precision:
        raise FormatError("a table does not come to its whole")
    return np.array(freq, np.int64)


def _tables(bits, precision, keys):
    """symbol, frequency and offset in its run for each context and slot."""
    size = 1 << precision
    symbol, freq, at = (np.zeros((CONTEXTS, size), np.int64) for _ in range(3))
    occurs, last = np.bincount(keys, minlength=CONTEXTS) > 0, None
    for c in range(CONTEXTS):
        kind = bits.get(2)
        if (kind == 0) == bool(occurs[c]) or kind > 2 or (kind == 1 and last is None):
            raise FormatError("a context has no table, or one that is not needed")
        if kind == 2:
            f = _frequencies(bits, precision)
            first = np.cumsum(f) - f
            s = np.repeat(np.arange(256), f)
            last = s, f[s], np.arange(size) - first[s]
        if kind:
            symbol[c], freq[c], at[c] = last
    return symbol, freq, at


def symbols(reader, keys):
    """One symbol for each of `keys`, the contexts."""
    keys = np.asarray(keys, np.int64)
    n = len(keys)
    if n == 0:
        return np.zeros(0, np.uint8)
    form = reader.u8()
    precision = form & 15
    if form >> 4 > 2 or not 8 <= precision <= 12:
        raise FormatError("a form that is not known")
    lanes, bits = (4, 32, 64)[form >> 4], Bits(reader)
    symbol, freq, at = _tables(bits, precision, keys)
    x = np.zeros(lanes, np.int64)
    for i in range(lanes):
        k = bits.get(4)
        x[i] = 1 << (16 + k) | bits.get(16 + k)
    bits.end()
    words = reader.varint()
    if words > n:
        raise FormatError("there are more words than symbols")
    word, next_word = np.frombuffer(reader.take(2 * words), "<u2").astype(np.int64), 0
    out, mask = np.zeros(n, np.uint8), (1 << precision) - 1
    for i in range(0, n, lanes):
        m = min(lanes, n - i)
        k, slot = keys[i:i + m], x[:m] & mask
        out[i:i + m] = symbol[k, slot]
        y = freq[k, slot] * (x[:m] >> precision) + at[k, slot]
        low = np.flatnonzero(y < 65536)
        if len(low):
            if next_word + len(low) > words:
                raise FormatError("it has too few words")
            y[low] = y[low] << 16 | word[next_word:next_word + len(low)]
            next_word += len(low)
        x[:m] = y
    if next_word != words or (x != 65536).any():
        raise FormatError("it does not end where it should")
    return out


def unzigzag(z):
    z = np.asarray(z, np.int64)
    return z >> 1 ^ -(z & 1)


def differences(sym, raw, width, begin=3):
    """Buckets to numbers; `raw` gives what the large ones, from 2^begin on, leave open."""
    d = unzigzag(sym)
    first = (2 << begin) - 1
    for i in np.flatnonzero(np.asarray(sym) >= first):
        b = int(sym[i]) - first
        k, top = b // 2 + begin, b & 1
        if k >= 8 * width:
            raise FormatError("a difference is larger than its element")
        negative, rest = raw.get(1), 0
        if k - 1 > 32:
            rest = raw.get(32)
            rest |= raw.get(k - 1 - 32) << 32
        else:
            rest = raw.get(k - 1)
        m = 1 << k | top << (k - 1) | rest
        d[i] = -m if negative else m
    return d

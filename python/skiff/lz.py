"""Packed pieces (docs/formats.md, "Packed pieces")."""
from .rans import FormatError

STATE_LITERAL = (0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 4, 5)


class Bits:
    """The range coder's reading side: probabilities are pairs of a fast and a slow estimate, in dictionaries by name."""

    def __init__(self, data):
        if len(data) < 4:
            raise FormatError("a packed piece is cut short")
        self.data, self.at, self.range, self.code = data, 4, 0xffffffff, int.from_bytes(data[:4], "big")
        self.seen = {}

    def fill(self):
        if self.range < 1 << 24:
            if self.at == len(self.data):
                raise FormatError("a packed piece is cut short")
            self.range <<= 8
            self.code = self.code << 8 | self.data[self.at]
            self.at += 1

    def bit(self, *name):
        fast, slow = self.seen.get(name, (32768, 32768))
        self.fill()
        bound = (self.range >> 16) * (fast + slow >> 1)
        if self.code < bound:
            self.range = bound
            self.seen[name] = fast + (65536 - fast >> 4), slow + (65536 - slow >> 7)
            return 0
        self.range -= bound
        self.code -= bound
        self.seen[name] = fast - (fast >> 4), slow - (slow >> 7)
        return 1

    def even(self, n):
        v = 0
        for _ in range(n):
            self.fill()
            self.range >>= 1
            bit = self.code >= self.range
            self.code -= self.range * bit
            v = v << 1 | bit
        return v

    def tree(self, n, *name):
        m = 1
        for _ in range(n):
            m = m << 1 | self.bit(*name, m)
        return m - (1 << n)

    def reverse(self, n, *name):
        m, v = 1, 0
        for i in range(n):
            bit = self.bit(*name, m)
            m, v = m << 1 | bit, v | bit << i
        return v

    def end(self):
        self.fill()
        if self.at != len(self.data) or self.code:
            raise FormatError("bytes are left over in a packed piece")


def length(b, which, place):
    if not b.bit(which, "mid"):
        return 2 + b.tree(3, which, "low", place)
    if not b.bit(which, "high"):
        return 10 + b.tree(3, which, "mid", place)
    return 18 + b.tree(8, which, "high")


def distance(b, n):
    slot = b.tree(6, "slot", min(n - 2, 3))
    if slot < 4:
        return slot
    bits = (slot >> 1) - 1
    d = (2 | slot & 1) << bits
    if slot < 14:
        return d + b.reverse(bits, "near", slot)
    d += b.even(bits - 4) << 4
    return d + b.reverse(4, "align")


def literal(b, before, state, expected):
    m, same = 1, state >= 7
    while m < 256:
        if same:
            e = expected >> 7
            expected = expected << 1 & 255
            bit = b.bit("literal", before >> 4, 1 + e, m)
            same = bit == e
        else:
            bit = b.bit("literal", before >> 4, 0, m)
        m = m << 1 | bit
    return m - 256


def calls(kind, p):
    """Absolute targets made relative again."""
    if kind == 1:
        i = 0
        while i + 5 <= len(p):
            if p[i] & 0xfe == 0xe8:
                if p[i + 4] in (0, 255):
                    v = int.from_bytes(p[i + 1:i + 5], "little") - (i + 5) & 0x1ffffff
                    p[i + 1:i + 5] = ((v ^ 0x1000000) - 0x1000000 & 0xffffffff).to_bytes(4, "little")
                    i += 5
                else:
                    i += 4
            else:
                i += 1
    elif kind == 2:
        for i in range(0, len(p) - 3, 4):
            v = int.from_bytes(p[i:i + 4], "little")
            if v >> 26 == 0x25:
                p[i:i + 4] = (0x25 << 26 | (v - i // 4) & 0x3ffffff).to_bytes(4, "little")
    return bytes(p)


def decode(payload, n):
    kind = payload[0]
    if kind > 2:
        raise FormatError("a filter that is not known")
    b, out, state, rep = Bits(payload[1:]), bytearray(), 0, [0, 0, 0, 0]
    while len(out) < n:
        place = len(out) & 3
        if not b.bit("match", state, place):
            expected = out[-1 - rep[0]] if rep[0] < len(out) else 0
            out.append(literal(b, out[-1] if out else 0, state, expected))
            state = STATE_LITERAL[state]
            continue
        many = 1
        if not b.bit("rep", state):
            many = length(b, "len", place)
            rep = [distance(b, many)] + rep[:3]
            state = 7 if state < 7 else 10
        else:
            k = 0
            if b.bit("not0", state):
                k = 2 + b.bit("not2", state) if b.bit("not1", state) else 1
                rep.insert(0, rep.pop(k))
            if k or b.bit("long0", state, place):
                many = length(b, "rep_len", place)
                state = 8 if state < 7 else 11
            else:
                state = 9 if state < 7 else 11
        if rep[0] >= len(out) or many > n - len(out):
            raise FormatError("a match from nowhere")
        for _ in range(many):
            out.append(out[-1 - rep[0]])
    b.end()
    return calls(kind, out)

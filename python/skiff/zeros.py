"""Old numbers that become zero first (docs/formats.md, "Zeros")."""
import numpy as np

from .rans import FormatError


class Zeros:
    def __init__(self, r, stripes):
        kind = r.u8()
        self.how, self.keeps_sign, self.on_grid = kind & 3, kind >> 2 & 1, kind >> 3 & 1
        if kind > 15 or not self.how:
            raise FormatError("zeros of no known kind")
        if self.how == 3:
            self.of, self.keep = r.u8(), r.u8()
            if self.of not in (2, 4, 8, 16, 32) or self.keep >= self.of:
                raise FormatError("groups of no known size")
            return
        self.least = np.array([r.varint() for _ in range(stripes if self.how == 2 else 1)], np.uint64)
        if (self.least >> np.uint64(31)).any():
            raise FormatError("a bound that no number has")

    def mark(self, size, stripe):
        """Which numbers of these sizes become zero; `stripe` is that of each."""
        if self.how != 3:
            least = self.least[stripe if self.how == 2 else np.zeros(len(stripe), np.int64)]
            return (size > 0) & (size.astype(np.uint64) <= least)
        out = np.zeros(len(size), bool)
        for k in range(int(stripe[-1]) + 1):
            first, end = np.searchsorted(stripe, [k, k + 1])
            n = -(-(end - first) // self.of)
            s = np.full(n * self.of, -1, np.int64)
            s[:end - first] = size[first:end]
            s = s.reshape(n, self.of)
            a, b, earlier = s[:, :, None], s[:, None, :], np.tri(self.of, k=-1, dtype=bool)
            before = ((b > a) | (b == a) & earlier).sum(2)
            out[first:end] = ((before >= self.keep) & (s > 0)).ravel()[:end - first]
        return out


def zeros(r, stripes):
    """What stands in front of levels; None where nothing does."""
    if not r.left() or r.data[r.at] != 3:
        return None
    r.u8()
    return Zeros(r, stripes)

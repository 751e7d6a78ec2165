#!/usr/bin/env python3
"""An independent decoder of `.skd` deltas: slow, small, and made after docs/formats.md, so that the format is what the page says
and not what one program does.

usage: python -m skiff.skd OLD FILE.skd NEW [ALSO]
"""
import hashlib
import os
import struct
import sys

from . import integer, low_rank, lz, mixed
from .rans import FormatError, Reader

HEAD, CHUNK_MAX, PATCH_MAX, SIDE_MAX, PACK_MAX = 128, 1 << 20, 1 << 22, 1 << 21, 1 << 22
COPY, RAW, ZSTD, PATCH, INT, ADAPTER, MIXED, PACK = range(8)


def sha(data):
    return hashlib.sha256(data).digest()


def tree(leaves):
    if not leaves:
        return bytes(32)
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\1" + tree(leaves[:k]) + tree(leaves[k:]))


def root_of(size, chunks):
    """The content root of chunks, pairs of length and digest."""
    leaves = [sha(b"\0" + struct.pack("<Q", n) + d) for n, d in chunks]
    return sha(b"\2" + struct.pack("<QQ", size, len(leaves)) + tree(leaves))


class Delta:
    """A .skd, its index checked."""

    def __init__(self, data):
        self.data = memoryview(data)
        self.piece = None, b""  # the last one that was unpacked, by its place
        if len(data) < HEAD or bytes(data[:4]) != b"SKD\x1a":
            raise FormatError("not a .skd")
        container, codec, index, payloads, also = struct.unpack_from("<HHQQQ", data, 4)
        if (container, codec) != (1, 2) or index < HEAD or index + payloads != len(data):
            raise FormatError("another version, or cut short")
        self.source_root, self.result_root = bytes(data[32:64]), bytes(data[64:96])
        if sha(bytes(data[:96]) + bytes(data[128:index])) != bytes(data[96:128]):
            raise FormatError("the index has not its digest")
        r = Reader(self.data[HEAD:index])
        self.source_size, self.result_size, n_tensors, n_chunks = (r.varint() for _ in range(4))
        self.also_size, self.also_root = also, bytes(r.take(32)) if also else b""
        self.all_sizes = self.source_size + also  # what chunks read: the source, and the other version behind it
        if self.all_sizes >= 1 << 64 or (also and self.source_root == self.result_root):
            raise FormatError("sources that cannot be")
        self.tensors = self._directory(r, n_tensors)
        self.chunks = self._table(r, n_chunks)
        if r.left():
            raise FormatError("bytes are left over in the index")
        self._place_payloads(index, payloads)

    def _directory(self, r, n):
        tensors, end, shift, t = [], 0, 0, {"type": 0, "row_bytes": 0}
        for _ in range(n):
            has = r.u8()
            if has > 63:
                raise FormatError("a tensor has what there is not")
            t = {"type": r.varint() if has & 1 else t["type"], "row_bytes": r.varint() if has & 2 else t["row_bytes"]}
            t["offset"] = end + (r.varint() if has & 4 else 0)
            t["bytes"] = r.varint()
            end = t["offset"] + t["bytes"]
            shift += r.svarint() if has & 8 else 0
            t["source_offset"], t["source_bytes"] = t["offset"] + shift, t["bytes"] + (r.svarint() if has & 16 else 0)
            t["side"] = r.varint() if has & 32 else 0
            if t["side"]:
                t["side_coding"], t["side_digest"] = r.u8(), bytes(r.take(32))
            if end > self.result_size or t["side"] > SIDE_MAX or not 0 <= t["source_offset"] <= self.all_sizes - t["source_bytes"]:
                raise FormatError("a tensor lies outside")
            if t["side"] and t["side_coding"] == PACK and (t["source_bytes"] or not 1 <= t["bytes"] <= PACK_MAX):
                raise FormatError("a packed piece that is none")
            tensors.append(t)
        return tensors

    def _table(self, r, n):
        chunks, at, copied, length = [], 0, 0, 0
        for _ in range(n):
            where, coding = divmod(r.u8(), 16)
            length = r.varint() if where == 0 else length if where == 1 else self._rest(at) if where == 2 else 0
            c = {"coding": coding, "length": length, "offset": at}
            at += c["length"]
            if not 1 <= c["length"] <= CHUNK_MAX or c["coding"] > PACK:
                raise FormatError("a chunk of no known kind")
            if c["coding"] == COPY:
                c["from"] = copied + r.svarint()
                copied, c["ranges"] = c["from"] + c["length"], [(c["from"], c["length"])]
            elif c["coding"] in (PATCH, MIXED):
                c["ranges"] = self._ranges(r, c)
            is_own = c["coding"] not in (COPY, RAW, PACK)
            c["payload"] = r.varint() if is_own else c["length"] if c["coding"] == RAW else 0
            c["digest"] = bytes(r.take(32))
            c["payload_digest"] = bytes(r.take(16)) if is_own else c["digest"]
            chunks.append(c)
        if at != (self.result_size if n else 0):
            raise FormatError("the chunks do not cover the result")
        if n and root_of(self.result_size, [(c["length"], c["digest"]) for c in chunks]) != self.result_root:
            raise FormatError("the chunks do not come to the result's root")
        return chunks

    def _rest(self, at):
        """What is left of the tensor or piece that the place lies in."""
        return next((t["offset"] + t["bytes"] - at for t in self.tensors if t["offset"] <= at < t["offset"] + t["bytes"]), 0)

    def _ranges(self, r, c):
        """The bytes of the source that a chunk refers to: pairs of offset and length."""
        ranges, end = [], c["offset"]
        for _ in range(r.varint() if c["coding"] == MIXED else 1):
            ranges.append((end + r.svarint(), r.varint()))
            end = sum(ranges[-1])
            if ranges[-1][0] < 0 or ranges[-1][1] < 1 or end > self.all_sizes:
                raise FormatError("a range outside of the source")
        if len(ranges) > 16 or sum(n for _, n in ranges) > PATCH_MAX:
            raise FormatError("too much of the source")
        return ranges

    def _place_payloads(self, at, left):
        for owner, size in [(t, "side") for t in self.tensors] + [(c, "payload") for c in self.chunks]:
            owner[size + "_at"] = at
            at, left = at + owner[size], left - owner[size]
        if left:
            raise FormatError("the payloads are not as long as they should be")

    def payload(self, owner, n, digest, at="payload_at"):
        p = self.data[owner[at]:owner[at] + n]
        if n and sha(p)[:len(digest)] != digest:
            raise FormatError("a payload has not its digest")
        return p

    def decode(self, chunk, old):
        """The bytes of one chunk of the result, made from `old`, the whole source and the other version behind it."""
        p = self.payload(chunk, chunk["payload"], chunk["payload_digest"])
        out = self._made(chunk, p, old)
        if len(out) != chunk["length"] or sha(out) != chunk["digest"]:
            raise FormatError("a chunk does not come out: the delta is for another base")
        return out

    def _unpacked(self, side, t):
        if self.piece[0] != t["offset"]:
            self.piece = t["offset"], lz.decode(bytes(side), t["bytes"])
        return self.piece[1]

    def _made(self, c, p, old):
        prefix = b"".join(bytes(old[at:at + n]) for at, n in c.get("ranges", ()))
        if c["coding"] == RAW:
            return bytes(p)
        if c["coding"] == COPY:
            return prefix
        if c["coding"] in (ZSTD, PATCH):
            return mixed.unpack(bytes(p), prefix, c["length"])
        if c["coding"] == MIXED:
            return mixed.decode(p, prefix, c["length"])
        t = next(t for t in self.tensors if t["offset"] <= c["offset"] < t["offset"] + t["bytes"])
        is_mine = t["side"] and t["side_coding"] == c["coding"]
        side = self.payload(t, t["side"], t["side_digest"], "side_at") if is_mine else b""
        if c["coding"] == PACK:
            at = c["offset"] - t["offset"]
            return self._unpacked(side, t)[at:at + c["length"]] if is_mine else b""
        at = t["source_offset"] + c["offset"] - t["offset"]
        how = integer if c["coding"] == INT else low_rank
        return how.decode(t["type"], t["row_bytes"], p, bytes(old[at:at + c["length"]]), side)


def apply(old, delta, also=b""):
    """The result of a delta (bytes) on `old`, and on `also` where it takes from another version too."""
    d = Delta(delta)
    if len(old) != d.source_size or (d.also_size and len(also) != d.also_size):
        raise FormatError("the delta is for another base")
    if d.source_root == d.result_root:
        return bytes(old)
    both = old + also if d.also_size else old
    return b"".join(d.decode(c, both) for c in d.chunks)


def main():
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__.strip())
    given = []
    for path in sys.argv[1:3] + sys.argv[4:]:
        with open(path, "rb") as f:
            given.append(f.read())
    out = apply(*given)
    with open(sys.argv[3] + ".part", "wb") as f:
        f.write(out)
    os.rename(sys.argv[3] + ".part", sys.argv[3])


if __name__ == "__main__":
    main()

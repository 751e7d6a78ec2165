"""Packed pieces (docs/formats.md, "Packed pieces"): raw LZMA by Python's own module."""
import lzma

from .rans import FormatError

X86, ARM64, FILTERS = 1, 2, 3


def relative(p):
    """Targets of arm64's BL and ADRP made relative again, which Python's module cannot do everywhere."""
    for i in range(0, len(p) - 3, 4):
        v = int.from_bytes(p[i:i + 4], "little")
        if v >> 26 == 0x25:
            v = 0x25 << 26 | v - i // 4 & 0x3ffffff
        elif v & 0x9f000000 == 0x90000000:
            pages = v >> 29 & 3 | v >> 3 & 0x1ffffc
            if pages + 0x20000 & 0x1c0000:
                continue
            pages -= i >> 12
            v = v & 0x9000001f | (pages & 3) << 29 | (pages & 0x3fffc) << 3 | -(pages & 0x20000) & 0xe00000
        p[i:i + 4] = v.to_bytes(4, "little")
    return bytes(p)


def decode(payload, n):
    if len(payload) < 2 or payload[0] >= FILTERS:
        raise FormatError("a filter that is not known")
    lc, lp, pb = payload[1] % 9, payload[1] // 9 % 5, payload[1] // 45
    if pb > 4 or lc + lp > 4:
        raise FormatError("LZMA has no such properties")
    chain = [{"id": lzma.FILTER_LZMA1, "dict_size": max(n, 4096), "lc": lc, "lp": lp, "pb": pb}]
    if payload[0] == X86:
        chain.insert(0, {"id": lzma.FILTER_X86})
    d = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=chain)
    try:
        out = d.decompress(payload[2:], n + 1)
    except lzma.LZMAError as e:
        raise FormatError(str(e)) from e
    if len(out) != n or not d.eof or d.unused_data:
        raise FormatError("a packed piece is cut short, or bytes are left over")
    return relative(bytearray(out)) if payload[0] == ARM64 else out

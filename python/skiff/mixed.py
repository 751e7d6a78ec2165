"""Chunks of any bytes in regions (docs/formats.md, "Mixed")."""
import numpy as np
import zstandard

from . import integer, low_rank
from .rans import FormatError, Reader, symbols

# Bits of the planes behind the upper four bits of the mantissa, and how sign, exponent and mantissa lie.
FLOATS = {0: (23, 8, (8, 8, 3)), 1: (10, 5, (6,)), 30: (7, 8, (3,))}

CAST = {0: (1, 4), 1: (1, 2), 30: (1, 2), 8: (32, 34), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24)}  # elements and bytes of a block


def unpack(frame, prefix, n):
    d = zstandard.ZstdCompressionDict(prefix, zstandard.DICT_TYPE_RAWCONTENT) if prefix else None
    out = zstandard.ZstdDecompressor(dict_data=d).decompress(frame, max_output_size=n)
    if len(out) != n:
        raise FormatError("a frame holds more or less than it should")
    return out


def plane(r, bits, n):
    if r.u8() == 1:
        return symbols(r, np.zeros(n, np.int64)).astype(np.uint64)
    packed = np.frombuffer(r.take((n * bits + 7) // 8), np.uint8)
    each = np.unpackbits(packed, bitorder="little")[:n * bits].reshape(n, bits).astype(np.uint64)
    return (each << np.arange(bits, dtype=np.uint64)).sum(axis=1)


def floats(kind, payload, n):
    mantissa, exponent_bits, planes = FLOATS[kind]
    r, width = Reader(payload), integer.WORDS[kind][0]
    count, z = n // width, r.u8()
    exponent = symbols(r, np.zeros(count, np.int64)).astype(np.uint64)
    rest = np.flatnonzero(exponent != 0) if z else np.arange(count)
    upper = symbols(r, exponent[rest] % 48).astype(np.uint64)
    out = exponent << np.uint64(mantissa)
    low, at = np.zeros(len(rest), np.uint64), 0
    for bits in planes if len(rest) else ():
        low |= plane(r, bits, len(rest)) << np.uint64(at)
        at += bits
    if r.left() or z > 1 or n % width:
        raise FormatError("floats of no known kind")
    out[rest] |= (upper >> np.uint64(4)) << np.uint64(mantissa + exponent_bits) | (upper & np.uint64(15)) << np.uint64(mantissa - 4) | low
    return out.astype(f"<u{width}").tobytes()


def cast(old_type, kind, old, n):
    """n bytes of a type, made of numbers of another."""
    if old_type == kind or not {old_type, kind} <= set(CAST):
        raise FormatError("numbers of types that are not made of each other")
    (a, a_bytes), (b, b_bytes) = CAST[old_type], CAST[kind]
    count = n // b_bytes * b
    if n % b_bytes or count % a or len(old) < count // a * a_bytes:
        raise FormatError("numbers of no whole blocks")
    each = max(a, b)
    x = low_rank.values(old_type, np.frombuffer(old[:count // a * a_bytes], np.uint8).reshape(-1, each // a * a_bytes)).reshape(-1, each)
    if not np.isfinite(x).all():
        raise FormatError("numbers that are not finite")
    return low_rank.anew(kind, x).tobytes()


def decode(payload, prefix, n):
    r = Reader(payload)
    regions, at = [], 0
    for _ in range(r.varint()):
        g = {"kind": r.u8(), "length": r.varint(), "at": at}
        at += g["length"]
        if g["kind"] > 4:
            raise FormatError("a region of no known kind")
        if g["kind"]:
            g["type"] = r.varint()
            if g["kind"] != 3:
                g["row"] = r.varint()
            if g["kind"] == 4:
                g["old type"] = r.varint()
            if g["kind"] in (1, 4):
                g["from"] = r.varint()
            g["payload"] = r.take(r.varint())
        regions.append(g)
    plain = sum(g["length"] for g in regions if g["kind"] == 0)
    if at != n:
        raise FormatError("the regions do not cover their chunk")
    frame, out = unpack(bytes(r.take(r.left())), prefix, plain) if plain else b"", bytearray(n)
    for g in regions:
        if g["kind"] == 0:
            out[g["at"]:g["at"] + g["length"]], frame = frame[:g["length"]], frame[g["length"]:]
    for g in regions:
        if g["kind"] == 0:
            continue
        if g["kind"] == 3:
            made = floats(g["type"], g["payload"], g["length"])
        else:
            old = bytes(g["length"])
            if g["kind"] == 1:
                all_old = prefix + bytes(out[:g["at"]])
                old = all_old[g["from"]:g["from"] + g["length"]]
            if g["kind"] == 4:
                old = cast(g["old type"], g["type"], prefix[g["from"]:], g["length"])
            made = integer.decode(g["type"], g["row"], g["payload"], old)
        if len(made) != g["length"]:
            raise FormatError("a region of another length")
        out[g["at"]:g["at"] + g["length"]] = made
    return bytes(out)

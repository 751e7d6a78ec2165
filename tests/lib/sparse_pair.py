"""Two versions of a model of any size as sparse GGUF files: holes, and a stretch of weights at each tensor's beginning that the second
version changes as a fine-tune does."""
import struct

import numpy as np

ALIGN = 4096
TYPES = {"BF16": (30, 1, 2), "Q8_0": (8, 32, 34), "Q4_1": (3, 32, 20)}  # number, elements and bytes of a block


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def weights(rng, kind, n, change):
    """About n bytes of blocks, and the same changed."""
    _, block, size = TYPES[kind]
    if kind == "BF16":
        w = rng.standard_normal(n // 2).astype("<f4") * 0.02
        moved = w + (rng.random(len(w)) < 0.5) * w * rng.standard_normal(len(w)).astype("<f4") * 0.01 * change
        return [(v.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes() for v in (w, moved)]
    blocks = rng.integers(0, 256, (n // size, size), dtype=np.uint8)
    head = 2 if kind == "Q8_0" else 4
    blocks[:, :head] = np.tile(np.frombuffer(np.array([0.01] * (head // 2), "<f2").tobytes(), np.uint8), (len(blocks), 1))
    moved = blocks.copy()
    hit = rng.random(moved[:, head:].shape) < 0.03 * change
    moved[:, head:][hit] ^= 1
    return [blocks.tobytes(), moved.tobytes()]


def write(paths, size, data, seed=1, tensors=400, row=8192):
    """Writes both versions: `size` bytes each, of which about `data` are weights, in whole tensors here and there; the rest are holes.
    Tensors take turns among the types."""
    rng, kinds = np.random.default_rng(seed), list(TYPES)
    plan, at, head = [], 0, struct.pack("<4sIQQ", b"GGUF", 3, tensors, 1) + text("general.alignment") + struct.pack("<II", 4, ALIGN)
    for i in range(tensors):
        number, block, bytes_ = TYPES[kinds[i % len(kinds)]]
        row_bytes = row // block * bytes_
        rows = max(1, size // tensors // row_bytes)
        head += text(f"blk.{i}.weight") + struct.pack("<IQQIQ", 2, row, rows, number, at)
        plan.append((kinds[i % len(kinds)], at, row_bytes * rows))
        at += (row_bytes * rows + ALIGN - 1) // ALIGN * ALIGN
    head += b"\0" * (-len(head) % ALIGN)
    files = [open(p, "wb") for p in paths]
    for f in files:
        f.truncate(len(head) + at)
        f.write(head)
    full = max(len(kinds), min(tensors, data * tensors // size))
    step = tensors // full - (1 if tensors // full > 1 and tensors // full % len(kinds) == 0 else 0)  # so that every type has its turn
    for kind, offset, bytes_ in plan[:step * full:step]:
        for f, w in zip(files, weights(rng, kind, bytes_, 1.0)):
            f.seek(len(head) + offset)
            f.write(w)
    for f in files:
        f.close()


def extents(f, size):
    import os
    at = 0
    while at < size:
        try:
            at = os.lseek(f.fileno(), at, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(f.fileno(), at, os.SEEK_HOLE)
        yield at, end
        at = end


def is_same(a, b):
    """Compares two files where either has data: holes are zeros."""
    import os
    size = os.path.getsize(a)
    if os.path.getsize(b) != size:
        return False
    with open(a, "rb", buffering=0) as x, open(b, "rb", buffering=0) as y:
        for f, g in ((x, y), (y, x)):
            for begin, end in extents(f, size):
                for at in range(begin, end, 1 << 24):
                    n = min(1 << 24, end - at)
                    if os.pread(f.fileno(), n, at) != os.pread(g.fileno(), n, at):
                        return False
    return True


def peak(command, timeout=None):
    """Runs it; the highest RssAnon seen (KiB, readings 2 ms apart), the processor's seconds, the wall clock's, the finished process."""
    import resource
    import subprocess
    import time
    before, begun, most = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while p.poll() is None:
        try:
            with open(f"/proc/{p.pid}/status") as f:
                most = max([most] + [int(line.split()[1]) for line in f if line.startswith("RssAnon")])
        except (OSError, ValueError):
            pass
        if timeout and time.monotonic() - begun > timeout:
            p.kill()
        time.sleep(0.002)
    out, err = p.communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return most, cpu, time.monotonic() - begun, subprocess.CompletedProcess(command, p.returncode, out, err)

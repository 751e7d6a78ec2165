#!/usr/bin/env python3
"""Memory of encoding and applying beyond the files' maps, on a sparse pair of models of 20 GB (or --size): the highest RssAnon.

Goals: 64 MiB to encode, 8 MiB to apply, whatever the model's size and the number of threads.  Needs about 1.5 times --data, and to apply
--size, of free disk in --scratch.  It is not among the benchmarks of `make bench`: run it by itself.
"""
import argparse
import os
import sys
import tempfile

import common

sys.path.insert(0, os.path.join(common.ROOT, "tests", "lib"))
import sparse_pair  # noqa: E402

LIMIT_KIB = {"encode": 64 << 10, "apply": 8 << 10, "apply in place": 8 << 10}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--size", type=int, default=20_000_000_000)
    ap.add_argument("--data", type=int, default=300_000_000, help="bytes that are no holes")
    ap.add_argument("--jobs", type=int, nargs="*", default=[1, 2, 8])
    ap.add_argument("--scratch", help="folder for the files")
    a = ap.parse_args()
    skiff, rows, status = os.path.join(os.path.abspath(a.build), "skiff"), [], 0
    with tempfile.TemporaryDirectory(dir=a.scratch) as d:
        old, new, delta, out = (os.path.join(d, n) for n in ("v1.gguf", "v2.gguf", "d.skd", "out.gguf"))
        sparse_pair.write((old, new), a.size, a.data)
        steps = [("encode", j, [skiff, "diff", old, new, "-o", delta, "--jobs", str(j)], None) for j in a.jobs]
        steps += [("apply", j, [skiff, "apply", old, delta, "-o", out, "--jobs", str(j)], out) for j in a.jobs]
        steps += [("apply in place", j, [skiff, "apply", old, delta, "--in-place", "--jobs", str(j)], old) for j in a.jobs[-1:]]
        for what, jobs, command, made in steps:
            kib, cpu, wall, r = sparse_pair.peak(command)
            if r.returncode or (made and not sparse_pair.is_same(made, new)):
                raise SystemExit(f"bench: {' '.join(command)}: {r.stderr.strip() or 'the result differs'}")
            if made == out:
                os.remove(out)
            is_in = kib <= LIMIT_KIB[what]
            status |= not is_in
            rows.append({"what": what, "threads": jobs, "anon_KiB": kib, "limit_KiB": LIMIT_KIB[what], "cpu_s": round(cpu, 2), "wall_s": round(wall, 2)})
            print(f"{what:<15} {jobs} threads {kib / 1024:7.1f} MiB of {LIMIT_KIB[what] >> 10}{'' if is_in else '  OVER'}   cpu {cpu:6.1f} s  wall {wall:6.1f} s", flush=True)
        common.write("delta_memory", rows, model_bytes=os.path.getsize(new), data_bytes=a.data, delta_bytes=os.path.getsize(delta))
    return status


if __name__ == "__main__":
    raise SystemExit(main())

#!/usr/bin/env python3
"""Runs the benchmarks: every bench/*.py with --build DIR, or those named.  Each runs the peer and us in the same run on the same input,
prints the ratio and writes bench/results/*.json.

usage: run.py --build DIR [NAME ...]
"""
import argparse
import glob
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "tools"))
import environment  # noqa: E402


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("names", nargs="*")
    a = ap.parse_args()
    build = os.path.abspath(a.build)
    have = {os.path.splitext(os.path.basename(p))[0]: p for p in sorted(glob.glob(os.path.join(HERE, "*.py")))}
    have = {n: p for n, p in have.items() if n not in ("run", "common")}
    for n in a.names:
        if n not in have:
            sys.exit(f"bench: {n}: no such benchmark; there are {', '.join(have)}")
    env = dict(os.environ, SKF_BUILD=build, SKF_MODELS=environment.prepare(build), PYTHONDONTWRITEBYTECODE="1",
               PYTHONPATH=os.pathsep.join([HERE, os.path.join(os.path.dirname(HERE), "tests", "lib")]))
    status = 0
    for n in a.names or have:
        print(f"== {n}", flush=True)
        status |= subprocess.run([environment.python(build), have[n], "--build", build], env=env).returncode
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())

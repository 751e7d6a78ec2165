#!/usr/bin/env python3
"""Runs the tests and counts what they say: the test command of `make check`.

Every test program prints TAP ("ok 1 - what", "not ok 2 - what"); a program that dies, hangs or prints fewer results than its plan
counts as one failure more.  The last line is `N passed, N failed`.

usage: run.py --build DIR [--only FOLDER] [--quick|--unit] [--match WORD,...] [--wrap COMMAND] [--slow FACTOR] [--list]
"""
import argparse
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools"))
import environment  # noqa: E402

RESULT = re.compile(r"^(ok|not ok)\b\s*(\d*)\s*(?:-\s*)?(.*)$")
PLAN = re.compile(r"^1\.\.(\d+)")


class Totals:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.broken = []


def run_one(name, command, env, limit, totals, verbose):
    begun = time.time()
    scratch = tempfile.mkdtemp(prefix="skiff-test-")
    env = dict(env, SKF_TMP=scratch, TMPDIR=scratch)
    if not shutil.which(command[0]):
        totals.failed += 1
        totals.broken.append(f"{name}: {command[0]} was not built")
        shutil.rmtree(scratch, ignore_errors=True)
        return
    p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, cwd=ROOT, text=True,
                         errors="replace", start_new_session=True)
    try:
        out, _ = p.communicate(timeout=limit)
        ended = "" if p.returncode == 0 else f"exit status {p.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        out, _ = p.communicate()
        ended = f"no end after {limit:.0f} s"
    try:
        os.killpg(p.pid, signal.SIGKILL)  # whatever it left running
    except ProcessLookupError:
        pass
    plan, good, bad, skipped, failures = None, 0, 0, 0, []
    for line in out.splitlines():
        m = PLAN.match(line)
        if m:
            plan = int(m.group(1)) if plan is None else plan + int(m.group(1))
            continue
        m = RESULT.match(line)
        if not m:
            continue
        if "# skip" in m.group(3).lower():  # cmocka says "not ok" of what it skips
            skipped += 1
        elif m.group(1) == "not ok":
            bad += 1
            failures.append(m.group(3))
        else:
            good += 1
    if plan is None or good + bad + skipped < plan:
        bad += 1
        failures.append(f"{good + bad - 1 + skipped} of {plan if plan is not None else 'unknown'} results; {ended or 'ended early'}")
    elif ended and not failures:
        bad += 1
        failures.append(ended)
    totals.passed += good
    totals.failed += bad
    totals.skipped += skipped
    mark = "ok  " if not bad else "FAIL"
    print(f"{mark} {name:<34} {good:4d} passed {bad:3d} failed {time.time() - begun:7.1f} s" + (f" ({skipped} skipped)" if skipped else ""), flush=True)
    if bad or verbose:
        for line in out.splitlines()[-80:]:
            print("     | " + line)
        for f in failures:
            totals.broken.append(f"{name}: {f}")
    shutil.rmtree(scratch, ignore_errors=True)


def tests(build, only, quick, unit, wrap):
    """(name, command, seconds it may take, needs the models)"""
    for kind in ("unit", "fault", "kernels", "fuzz"):
        for src in sorted(glob.glob(os.path.join(ROOT, "tests", kind, "*.c"))):
            stem = os.path.splitext(os.path.basename(src))[0]
            folder = "kernels" if kind == "kernels" else stem.split("_")[0]
            corpus = [os.path.join(ROOT, "tests", "fuzz", "corpus", stem)] if kind == "fuzz" else []
            if only in (None, folder):
                yield f"{kind}/{stem}", wrap + [os.path.join(build, "tests", kind, stem)] + corpus, 300, False
    for kind in () if unit else ("tools", "cli", "e2e"):
        if only not in (None, kind) or (quick and kind == "e2e"):
            continue
        for src in sorted(glob.glob(os.path.join(ROOT, "tests", kind, "*.py")) + glob.glob(os.path.join(ROOT, "tests", kind, "*.sh"))):
            interpreter = [environment.python(build)] if src.endswith(".py") else ["/bin/bash"]
            yield f"{kind}/{os.path.splitext(os.path.basename(src))[0]}", interpreter + [src], 900, True


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--only")
    ap.add_argument("--quick", action="store_true")
    ap.add_argument("--unit", action="store_true", help="only the programs in C that need no model")
    ap.add_argument("--match", help="only tests whose name holds one of these (comma between)")
    ap.add_argument("--wrap", default="", help="run the programs in C under this command")
    ap.add_argument("--slow", type=float, default=1.0)
    ap.add_argument("--list", action="store_true")
    ap.add_argument("--verbose", action="store_true")
    a = ap.parse_args()
    build = os.path.abspath(a.build)
    every = tests(build, a.only, a.quick, a.unit, a.wrap.split())
    chosen = [t for t in every if not a.match or any(m in t[0] for m in a.match.split(","))]
    if a.list:
        print("\n".join(t[0] for t in chosen))
        return 0
    env = dict(os.environ, SKF_BUILD=build, SKF_ROOT=ROOT, SKF_SLOW=str(a.slow), CMOCKA_MESSAGE_OUTPUT="TAP",
               PYTHONPATH=os.path.join(ROOT, "tests", "lib"), PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1")
    env.pop("SKF_CPU", None)
    if any(t[3] for t in chosen):
        env["SKF_MODELS"] = environment.prepare(build)
    totals, begun = Totals(), time.time()
    for name, command, limit, _ in chosen:
        run_one(name, command, env, limit * a.slow, totals, a.verbose)
    for b in totals.broken:
        print("failed: " + b)
    print(f"{time.time() - begun:.0f} s" + (f", {totals.skipped} skipped" if totals.skipped else ""))
    print(f"{totals.passed} passed, {totals.failed} failed")
    return 1 if totals.failed or not totals.passed else 0


if __name__ == "__main__":
    sys.exit(main())

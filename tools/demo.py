#!/usr/bin/env python3
"""The demo: a fleet of two boxes on this machine, one update from start to end, told as a story.

usage: demo.py --build DIR [--keep]
"""
import argparse
import os
import shutil
import sys
import tempfile
import textwrap
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "tests", "lib"), os.path.join(ROOT, "tools")]
import environment  # noqa: E402
import fleet as fl  # noqa: E402

ADAPTER = os.path.join(ROOT, "examples", "smollm2-135m-python-lora.gguf")
QUESTION = "Write a Python function that returns the n-th Fibonacci number."


def tell(text):
    print("\n" + textwrap.fill(text, 100), flush=True)


def quote(who, version, text):
    print(f"\n  {who} (version {version}) answers:")
    for line in text.strip().splitlines():
        print("  | " + line)
    sys.stdout.flush()


def mb(n):
    return f"{n / 1e6:.1f} MB" if n >= 1e6 else f"{n / 1e3:.0f} kB"


def story(folder, build):
    begun = time.monotonic()
    v1 = os.path.join(environment.fetch_model(build), "published.gguf")
    v2 = os.path.join(folder, "v2.gguf")
    full = os.path.getsize(v1)

    tell("1. A centre and two boxes. Certificates, signing keys and the signed repository are made; then the distributor and two "
         "agents start, each agent with nothing but its certificate and the first root of trust.")
    fleet = fl.Fleet(folder, build, "demo")
    try:
        fleet.make()
        fleet.start_centre()
        one, two = fleet.add_agent("box-1", "--watch", "3"), fleet.add_agent("box-2", "--watch", "3")

        tell(f"2. Version 1.0 is published: SmolLM2-135M-Instruct, {mb(full)}, signed with the release key, which the distributor never sees.")
        fleet.publish(v1, "1.0")
        for box in (one, two):
            got = fleet.wait(box.name, version="1.0", phase="confirmed")
            print(f"  {box.name}: 1.0 confirmed, {mb(got['bytes_received'])} received")
        said1, version = one.chat(QUESTION, 96)
        tell(f'We ask box-1: "{QUESTION}"')
        quote("box-1", version, said1)

        tell("3. An adapter trained on Python source is merged into the model, on the published file's own quantization grid: version 2.0.")
        t = time.monotonic()
        fleet.skiff("merge", v1, ADAPTER, "-o", v2)
        print(f"  merged in {time.monotonic() - t:.1f} s, {mb(os.path.getsize(v2))}")

        tell("4. Version 2.0 is published and rolled out while four clients per box keep asking for streamed answers.")
        clients = [fl.Clients(one).start(), fl.Clients(two).start()]
        time.sleep(1)
        t = time.monotonic()
        fleet.publish(v2, "2.0")
        for box in (one, two):
            got = fleet.wait(box.name, version="2.0", phase="confirmed", seconds=240)
            sent = got["bytes_received"]
            print(f"  {box.name}: 2.0 confirmed; {mb(sent)} received instead of {mb(full)} ({full / max(sent, 1):.0f}x less), "
                  f"swap's pause {got['swap_pause_us'] / 1000:.1f} ms")
        took = time.monotonic() - t
        for c in clients:
            c.stop()
        failed = [f for c in clients for f in c.failed]
        print(f"  {took:.1f} s from publishing to both confirmed, the watch of 3 s included; meanwhile {sum(c.answers for c in clients)} answers, "
              f"{len(failed)} failed, longest gap in a stream {max(c.gap for c in clients) * 1000:.0f} ms")
        if failed:
            raise fl.Failed("requests failed during the swap: " + failed[0])
        said2, version = one.chat(QUESTION, 96)
        quote("box-1", version, said2)
        if said2 == said1:
            raise fl.Failed("version 2.0 answers as 1.0 did")

        tell("5. box-2 is pinned back to 1.0. Everything it needs is still in its store, so nothing is sent.")
        t = time.monotonic()
        fleet.operate("pin", "box-2", "--model", fl.MODEL, "--version", "1.0")
        got = fleet.wait("box-2", version="1.0", phase="confirmed")
        print(f"  box-2: 1.0 confirmed {time.monotonic() - t:.1f} s later")
        said3, version = two.chat(QUESTION, 96)
        quote("box-2", version, said3)
        if said3 != said1:
            raise fl.Failed("box-2 does not answer as version 1.0 did")
        print("\n  The same words as version 1.0 said at first; box-1 stays on 2.0.")
    finally:
        fleet.stop()
    tell(f"Everything is stopped. {time.monotonic() - begun:.0f} s in all.")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--keep", action="store_true", help="leave the fleet's folder and say where it is")
    a = ap.parse_args()
    folder = tempfile.mkdtemp(prefix="skiff-demo-")
    try:
        story(folder, os.path.abspath(a.build))
    except fl.Failed as e:
        print(f"\ndemo: {e}\ndemo: logs are in {folder}", file=sys.stderr)
        a.keep = True
        return 1
    finally:
        if a.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

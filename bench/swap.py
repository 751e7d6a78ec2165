#!/usr/bin/env python3
"""Swaps under load: a real fleet of one distributor and one box on loopback with the published SmolLM2-135M and its merge with examples/'s adapter, four clients that stream answers
all the time, and pins that move the box from one version to the other and back.

steady      a time without swaps: the gaps between tokens of a stream
swaps       the same gaps while swaps go on; from the operator's word to the first token of the other version; the pause in which no worker took requests
memory      own memory (Pss_Anon) of agent, gateway and worker after the first ten swaps and after the last, at rest
"""
import argparse
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time

import common

sys.path.insert(0, os.path.join(common.ROOT, "tests", "lib"))
import fleet as fl  # noqa: E402
from footprint import reading  # noqa: E402

ADAPTER = os.path.join(common.ROOT, "examples", "smollm2-135m-python-lora.gguf")


class Clients:
    """Clients that stream answers until stopped. Every gap is kept with the time of its end, and when a version's first token came."""

    def __init__(self, port, count, tokens):
        self.port, self.tokens, self.failed, self.answers = port, tokens, [], 0
        self.gaps, self.seen, self._end = [], [], threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(count)]
        for t in self._threads:
            t.start()

    def _ask(self, number):
        n = 0
        while not self._end.is_set():
            n += 1
            try:
                self._stream(f"Client {number}, question {n}: tell me about lists in Python.")
            except Exception as e:  # noqa: BLE001 - every failure counts
                self.failed.append(f"{type(e).__name__}: {e}")
                time.sleep(0.1)

    def _stream(self, text):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        c.request("POST", "/v1/chat/completions", json.dumps(dict(model=fl.MODEL, messages=[{"role": "user", "content": text}], max_tokens=self.tokens, temperature=0,
                  stream=True)), {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            raise OSError(f"{r.status} {r.read()[:200]!r}")
        version, last, finish = r.headers["x-skiff-version"], None, None
        for line in r:
            now = time.monotonic()
            if not line.startswith(b"data: {"):
                continue
            choice = (json.loads(line[6:]).get("choices") or [{}])[0]
            finish = choice.get("finish_reason") or finish
            if choice.get("delta", {}).get("content"):
                if last is None:
                    self.seen.append((now, version))
                else:
                    self.gaps.append((now, now - last))
                last = now
        c.close()
        if finish not in ("stop", "length"):
            raise OSError("the stream was cut")
        self.answers += 1

    def first_of(self, version, since):
        """When its first token came; None."""
        return next((t for t, v in list(self.seen) if v == version and t >= since), None)

    def between(self, a, b):
        return [g for t, g in self.gaps if a <= t <= b]

    def stop(self):
        self._end.set()
        for t in self._threads:
            t.join(120)


def own(box):
    """Own bytes of everything that runs on the box."""
    pids = [box.p.pid, *box.children("skiff-gateway"), *box.children("skiff-worker")]
    return 1024 * sum(r["own_kb"] for r in map(reading, pids) if r)


def p99(values):
    return sorted(values)[int(0.99 * (len(values) - 1))]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--swaps", type=int, default=100)
    ap.add_argument("--steady", type=float, default=20, help="seconds")
    a = ap.parse_args()
    v1 = os.path.join(os.environ["SKF_MODELS"], "published.gguf")
    with tempfile.TemporaryDirectory() as folder, fl.Fleet(os.path.join(folder, "f"), a.build) as fleet:
        v2 = os.path.join(folder, "v2.gguf")
        fleet.skiff("merge", v1, ADAPTER, "-o", v2)
        fleet.publish(v1, "1.0")
        box = fleet.add_agent("box", "--watch", "1")
        fleet.wait("box", version="1.0", phase="confirmed")
        fleet.publish(v2, "2.0")
        fleet.wait("box", version="2.0", phase="confirmed", seconds=300)
        clients = Clients(box.port, 4, 48)
        time.sleep(3)
        begun = time.monotonic()
        time.sleep(a.steady)
        ended = time.monotonic()
        firsts, pauses, memory = [], [], []
        for i in range(a.swaps):
            version = ("1.0", "2.0")[i % 2]
            said = time.monotonic()
            fleet.operate("pin", "box", "--model", fl.MODEL, "--version", version)
            pauses.append(fleet.wait("box", version=version, phase="confirmed")["swap_pause_us"] / 1e6)
            firsts.append(fl.wait_for("its first token", 60, lambda: clients.first_of(version, said)) - said)  # noqa: B023
            if i in (9, a.swaps - 1):
                time.sleep(3)
                memory.append(own(box))
        over = time.monotonic()
        clients.stop()
        steady, swaps = clients.between(begun, ended), clients.between(ended, over)
        row = {"what": "swaps under 4 streaming clients", "swaps": a.swaps, "answers": clients.answers, "failed_or_cut": len(clients.failed),
               "steady_gap_s": {"median": statistics.median(steady), "p99": p99(steady), "max": max(steady)},
               "swap_gap_s": {"median": statistics.median(swaps), "p99": p99(swaps), "max": max(swaps)},
               "word_to_first_token_s": common.summary(firsts), "pause_s": common.summary(pauses), "memory_bytes": memory,
               "memory_drift": memory[-1] / memory[0] - 1}
        row["gap_p99_times_steady"] = row["swap_gap_s"]["p99"] / row["steady_gap_s"]["p99"]
        print(json.dumps(row, indent=1))
        for f in clients.failed[:5]:
            print(f)
        common.write("swap", [row])
    return 1 if clients.failed else 0


if __name__ == "__main__":
    sys.exit(main())

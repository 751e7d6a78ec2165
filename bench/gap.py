#!/usr/bin/env python3
"""What a long prompt does to those who decode, in a worker by itself (SmolLM2-135M Q4_1): gaps between the tokens of two streams, steady and while a prompt of some 3,500 tokens
comes in, and how long that takes; with portions that fit the time (--gap 175, as a worker has it by itself) and with whole ones (--gap 10000). And the time to the first token
of a short prompt that comes alone, with gathering and without.
"""
import argparse
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

import common

RUNS, LONG, STEADY = 3, 3500, 150
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def local_proto(folder):
    from grpc_tools import protoc
    if protoc.main(["protoc", "-I" + os.path.join(ROOT, "proto"), "--python_out=" + folder, "local.proto"]):
        raise SystemExit("protoc failed")
    sys.path.insert(0, folder)
    import local_pb2
    return local_pb2


class Worker:
    def __init__(self, pb, build, model, folder, *args):
        self.pb, self.path, self.times, self.finished = pb, os.path.join(folder, f"{time.time_ns()}.sock"), {}, {}
        self.p = subprocess.Popen([os.path.join(build, "skiff-worker"), "--socket", self.path, "--file", model, "--cache", "1", *args], stderr=subprocess.DEVNULL)
        while not os.path.exists(self.path):
            time.sleep(0.01)
        self.s = socket.socket(socket.AF_UNIX)
        self.s.connect(self.path)
        self.changed = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        f = self.s.makefile("rb")
        while True:
            head = f.read(4)
            if len(head) < 4:
                return
            m = self.pb.FromWorker()
            m.ParseFromString(f.read(struct.unpack("<I", head)[0]))
            now = time.perf_counter()
            with self.changed:
                if m.WhichOneof("kind") == "token":
                    self.times.setdefault(m.token.id, []).append(now)
                elif m.WhichOneof("kind") == "finished":
                    self.finished[m.finished.id] = m.finished
                self.changed.notify_all()

    def send(self, **kind):
        m = self.pb.ToWorker(**kind).SerializeToString()
        self.s.sendall(struct.pack("<I", len(m)) + m)

    def ask(self, number, prompt, tokens):
        self.times[number] = []
        self.send(generate=self.pb.Generate(id=number, prompt=prompt, sampling=self.pb.Sampling(max_tokens=tokens, temperature=0)))
        return time.perf_counter()

    def wait(self, condition):
        end = time.monotonic() + 900
        with self.changed:
            while not condition():
                self.changed.wait(1)
                if time.monotonic() > end or self.p.poll() is not None:
                    raise SystemExit("the worker does not get there")

    def stop(self):
        self.p.terminate()
        self.p.wait()


def gaps(times, begin, end):
    return [b - a for a, b in zip(times, times[1:]) if begin <= a and b <= end]


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def long_prompt(w):
    """Gaps of two streams before and while a long prompt comes in."""
    for number in (1, 2):
        w.ask(number, ", ".join(str(i * number) for i in range(1, 9)) + ",", 4000)
    w.wait(lambda: all(len(w.times[n]) > STEADY for n in (1, 2)))
    begun = w.ask(3, " ".join(f"{i * 7919 % 9973}" for i in range(LONG // 5)), 1)
    w.wait(lambda: w.times[3])
    end = w.times[3][0]
    w.wait(lambda: 3 in w.finished)
    steady = [g for n in (1, 2) for g in gaps(w.times[n], w.times[n][20], begun)]
    during = [g for n in (1, 2) for g in gaps(w.times[n], begun, end)]
    for number in (1, 2):
        w.send(cancel=w.pb.CancelGenerate(id=number))
    w.wait(lambda: {1, 2} <= set(w.finished))
    return {"prompt_tokens": w.finished[3].prompt_tokens, "steady_gap_s": statistics.median(steady), "steady_gap_p99_s": quantile(steady, 0.99), "gap_s": statistics.median(during),
            "gap_p99_s": quantile(during, 0.99), "gap_ratio": statistics.median(during) / statistics.median(steady),
            "gap_p99_ratio": quantile(during, 0.99) / statistics.median(steady), "longest_gap_s": max(during), "prompt_s": end - begun}


def alone(w):
    """Time to the first token of short prompts, each alone."""
    out = []
    for i in range(30):
        number = 100 + i
        begun = w.ask(number, f"Question {i}: what is it?", 1)
        w.wait(lambda: number in w.finished)
        out.append(w.times[number][0] - begun)
        time.sleep(0.03)
    return statistics.median(out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--runs", type=int, default=RUNS)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    model, rows = os.path.join(os.environ["SKF_MODELS"], "published.gguf"), {}
    ways = (("portions that fit", ()), ("whole portions", ("--gap", "10000")), ("no gathering", ("--gather", "0,0")))
    with tempfile.TemporaryDirectory() as folder:
        pb = local_proto(folder)
        for _ in range(a.runs):
            for what, args in ways:
                w = Worker(pb, a.build, model, folder, "--threads", str(a.threads), "--context", "4096", *args)
                try:
                    row = {"first_token_alone_s": alone(w)}
                    if what != "no gathering":
                        row.update(long_prompt(w))
                    rows.setdefault(what, []).append(row)
                finally:
                    w.stop()
    out = [{"what": what, "threads": a.threads, "model": "SmolLM2-135M Q4_1", **{k: common.summary([r[k] for r in runs]) for k in runs[0]}} for what, runs in rows.items()]
    for row in out:
        print(row["what"], json.dumps({k: round(v["median"], 5) for k, v in row.items() if isinstance(v, dict)}))
    common.write("gap", out)


if __name__ == "__main__":
    main()

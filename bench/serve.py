#!/usr/bin/env python3
"""Serving SmolLM2-135M Q4_1 on two threads: `skiff serve` and llama.cpp's llama-server (bench/peers/llama.py builds it), one after the other in turns.

one stream      128 tokens after a short prompt: tokens a second between the first and the last, against `skiff bench` of the same run
first token     from starting a server for one conversation to the first token of its first answer; memory then (all its processes' Pss)
shared prefix   a prompt of some 500 tokens was answered once; then eight clients send it at once, each with another ending: time to the first token, the middle one and the last
streams         1, 4, 8 and 16 clients at once, 64 tokens each: all tokens a second, and the longest gap between two tokens of a stream

Clients are threads of this script, which costs both alike.
"""
import argparse
import http.client
import json
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time

import common
from peers import llama

RUNS, THREADS, TOKENS = 5, 2, 128
SHORT = "List the months of the year and say a sentence about each."
LONG = " ".join(f"Rule {i}: when a customer asks about order {i * 37 % 101}, answer kindly, name the order and say what happens next." for i in range(1, 19))


class Server:
    """A server on a port of its own, until stopped."""

    def __init__(self, command, port):
        self.port, self.begun = port, time.perf_counter()
        self.p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def ask(self, messages, tokens, **more):
        """One streamed chat: seconds to the first token, its tokens' times, and the text."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        begun, times, text = time.perf_counter(), [], ""
        c.request("POST", "/v1/chat/completions", json.dumps(dict(model="m", messages=messages, max_tokens=tokens, temperature=0, stream=True, **more)),
                  {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            raise OSError(f"{r.status} {r.read()[:200]!r}")
        for line in r:
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:]).get("choices")
                piece = choices and choices[0]["delta"].get("content")
                if piece:
                    times.append(time.perf_counter())
                    text += piece
        c.close()
        return {"first": times[0] - begun, "times": times, "text": text}

    def first(self, messages):
        """Asks until it answers; seconds from the start to the first token."""
        while True:
            try:
                return self.ask(messages, 1)["times"][0] - self.begun
            except (OSError, IndexError):
                if self.p.poll() is not None:
                    raise SystemExit("a server ended by itself")
                time.sleep(0.005)

    def pss(self):
        """Bytes of memory of the server and its children."""
        total = 0
        for pid in [self.p.pid, *map(int, subprocess.run(["pgrep", "-s", str(self.p.pid)], capture_output=True, text=True).stdout.split())]:
            try:
                with open(f"/proc/{pid}/smaps_rollup") as f:
                    total += 1024 * int(re.search(r"^Pss: +(\d+)", f.read(), re.M).group(1))
            except (OSError, AttributeError):
                pass
        return total

    def stop(self):
        self.p.terminate()
        self.p.wait(30)


def message(text, system=None):
    return ([{"role": "system", "content": system}] if system else []) + [{"role": "user", "content": text}]


def together(server, asks):
    """All asked at once; their answers in order."""
    got = [None] * len(asks)

    def one(i):
        got[i] = server.ask(*asks[i])
    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(asks))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if None in got:
        raise SystemExit("a request failed")
    return got


def measure(server):
    """Everything of one server's life, as numbers by name."""
    out = {}
    server.first(message("Hello"))
    one = server.ask(message(SHORT), TOKENS)
    out["one_stream_tokens_per_s"] = (len(one["times"]) - 1) / (one["times"][-1] - one["times"][0])
    server.ask(message("Begin.", LONG), 8)
    firsts = sorted(a["first"] for a in together(server, [(message(f"Question {i}: what now?", LONG), 8) for i in range(8)]))
    out["shared_prefix_first_token_s"], out["shared_prefix_last_first_token_s"] = statistics.median(firsts), firsts[-1]
    for n in (1, 4, 8, 16):
        begun = time.perf_counter()
        answers = together(server, [(message(f"Tell me fact number {i} about the sea, at length."), 64) for i in range(n)])
        out[f"streams_{n}_tokens_per_s"] = sum(len(a["times"]) for a in answers) / (max(a["times"][-1] for a in answers) - begun)
        out[f"streams_{n}_longest_gap_s"] = max(b - a for x in answers for a, b in zip(x["times"], x["times"][1:]))
    return out


def start(server):
    """Of a server for one conversation of 2,048 tokens: how soon it answers, and what it holds then."""
    first = server.first(message("Hello"))
    return {"exec_to_first_token_s": first, "memory_bytes": server.pss()}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", default="build")
    ap.add_argument("--runs", type=int, default=RUNS)
    a = ap.parse_args()
    skiff, model = os.path.join(os.path.abspath(a.build), "skiff"), os.path.join(os.environ["SKF_MODELS"], "published.gguf")
    tools = llama.prepare()
    with tempfile.TemporaryDirectory() as folder:
        served = os.path.join(folder, "m.gguf")
        os.symlink(model, served)
        ways = {"skiff": (lambda port, slots: [skiff, "serve", "-m", served, "--listen", f"127.0.0.1:{port}", "--threads", str(THREADS), "--slots", str(slots),
                                               "--context", "2048"])}
        if tools:
            ways["llama.cpp"] = lambda port, slots: [tools["llama-server"], "-m", served, "--host", "127.0.0.1", "--port", str(port), "-t", str(THREADS), "-np", str(slots),
                                                     "-c", str(slots * 2048), "--no-webui"]
        got, port = {w: [] for w in ways}, 18300
        for _ in range(a.runs):
            for way, command in ways.items():
                numbers = {}
                for slots, what in ((1, start), (16, measure)):
                    port += 1
                    s = Server(command(port, slots), port)
                    try:
                        numbers.update(what(s))
                    finally:
                        s.stop()
                got[way].append(numbers)
                if way == "skiff":
                    r = json.loads(subprocess.run([skiff, "bench", "-m", model, "--threads", str(THREADS), "-p", "0", "--json"], capture_output=True, text=True, check=True).stdout)
                    got[way][-1]["kernels_tokens_per_s"] = r["decode_tokens_per_s"]
    rows = [{"what": way, "threads": THREADS, "model": "SmolLM2-135M Q4_1", "model_bytes": os.path.getsize(model),
             **{k: common.summary([r[k] for r in runs]) for k in runs[0]}} for way, runs in got.items()]
    for name in rows[0]:
        if isinstance(rows[0][name], dict):
            medians = [r[name]["median"] for r in rows if name in r]
            print(f"{name:<36} " + "  ".join(f"{r['what']} {r[name]['median']:.6g}" for r in rows if name in r)
                  + (f"  ratio {medians[0] / medians[1]:.3f}" if len(medians) == 2 else ""))
    common.write("serve", rows, peer=bool(tools))


if __name__ == "__main__":
    main()

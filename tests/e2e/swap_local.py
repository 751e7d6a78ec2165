"""A gateway and two workers of one real model: the route goes back and forth 20 times under 4 streaming clients. No request fails, none
is cut, and both versions answer the same words.  The longest gap between two pieces of an answer is reported, not judged."""
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import fleet  # noqa: E402
from tap import check, done, note  # noqa: E402

BUILD, TMP, MODELS = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], os.environ["SKF_MODELS"]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SLOW = float(os.environ.get("SKF_SLOW", "1"))
SWAPS, CLIENTS, TOKENS = 20, 4, 32


def local_proto():
    """Python classes of proto/local.proto, made by the compiler that comes with grpcio-tools."""
    from grpc_tools import protoc
    out = os.path.join(TMP, "gen")
    os.makedirs(out, exist_ok=True)
    if protoc.main(["protoc", "-I" + os.path.join(ROOT, "proto"), "--python_out=" + out, "local.proto"]):
        raise SystemExit("protoc failed")
    sys.path.insert(0, out)
    import local_pb2
    return local_pb2


class Control:
    """The gateway's control socket."""

    def __init__(self, pb, path):
        self.pb, self.id, self.s = pb, 0, socket.socket(socket.AF_UNIX)
        self.s.settimeout(20 * SLOW)
        self.s.connect(path)

    def ask(self, **kind):
        self.id += 1
        m = self.pb.ToGateway(id=self.id, **kind).SerializeToString()
        self.s.sendall(struct.pack("<I", len(m)) + m)
        answer = self.pb.FromGateway()
        answer.ParseFromString(self._read(struct.unpack("<I", self._read(4))[0]))
        return answer

    def _read(self, n):
        out = b""
        while len(out) < n:
            got = self.s.recv(n - len(out))
            if not got:
                raise EOFError("control socket closed")
            out += got
        return out

    def route(self, *routes):
        r = self.ask(set_routes=self.pb.SetRoutes(routes=[self.pb.Route(model="m", version=v, socket=s) for v, s in routes]))
        if r.error:
            raise RuntimeError(r.error)
        return r.status.swap_pause_us


class Client(threading.Thread):
    """Asks for one streamed answer after the other; keeps every failure, text and gap."""

    def __init__(self, port, number, end):
        super().__init__(daemon=True)
        self.port, self.number, self.end = port, number, end
        self.failed, self.texts, self.versions, self.gaps = [], set(), [], []

    def run(self):
        while not self.end.is_set():
            try:
                self.ask()
            except Exception as e:  # noqa: BLE001 - every failure counts
                self.failed.append(f"client {self.number}: {type(e).__name__}: {e}")
                time.sleep(0.1)

    def ask(self):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * SLOW)
        c.request("POST", "/v1/chat/completions", json.dumps({
            "model": "m", "messages": [{"role": "user", "content": f"Count to twenty. {self.number}"}], "max_tokens": TOKENS,
            "temperature": 0, "stream": True}), {"Content-Type": "application/json"})
        r = c.getresponse()
        if r.status != 200:
            raise RuntimeError(f"{r.status} {r.read()[:200]!r}")
        text, last, finish, over = "", time.monotonic(), None, False
        for raw in r:
            line = raw.decode().strip()
            if not line.startswith("data: "):
                continue
            now = time.monotonic()
            if text:
                self.gaps.append(now - last)
            last = now
            if line == "data: [DONE]":
                over = True
                break
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"]["message"])
            for choice in event["choices"]:
                text += choice["delta"].get("content", "")
                finish = choice["finish_reason"] or finish
        c.close()
        if not over or finish not in ("stop", "length"):
            raise RuntimeError(f"cut after {text!r}")
        self.texts.add(text)
        self.versions.append(r.headers["x-skiff-version"])


def start(*args):
    return subprocess.Popen([os.path.join(BUILD, args[0]), *args[1:]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def swap(control, sockets, clients):
    """20 changes of route, each only when the version before it has answered; the longest pause in microseconds, and active requests
    left on the workers that are routed no more."""
    pauses = []
    for i in range(SWAPS):
        version = ("v2", "v1")[i % 2]
        seen = [len(c.versions) for c in clients]
        pauses.append(control.route((version, sockets[version])))
        fleet.wait_for(f"an answer by {version}", 60, lambda: any(version in c.versions[n:] for c, n in zip(clients, seen)), 0.02)
    return max(pauses)


def main():
    pb, model = local_proto(), os.path.join(MODELS, "published.gguf")
    sockets = {v: os.path.join(TMP, v + ".sock") for v in ("v1", "v2")}
    workers = [start("skiff-worker", "--socket", s, "--file", model, "--name", "m", "--version", v, "--parent-death") for v, s in sockets.items()]
    gateway = start("skiff-gateway", "--listen", "127.0.0.1:0", "--control", os.path.join(TMP, "control.sock"), "--parent-death")
    try:
        port = int(gateway.stdout.readline().split(":")[-1])
        control = Control(pb, os.path.join(TMP, "control.sock"))
        fleet.wait_for("both workers", 120, lambda: all(os.path.exists(s) for s in sockets.values()))
        control.route(("v1", sockets["v1"]))
        end = threading.Event()
        clients = [Client(port, i, end) for i in range(CLIENTS)]
        for c in clients:
            c.start()
        fleet.wait_for("answers", 60, lambda: all(c.versions for c in clients))
        pause = swap(control, sockets, clients)
        end.set()
        for c in clients:
            c.join(120 * SLOW)
        failed, gaps = sum((c.failed for c in clients), []), sorted(sum((c.gaps for c in clients), []))
        answers = sum(len(c.versions) for c in clients)
        check(not failed, f"{answers} streamed answers over {SWAPS} swaps, none failed", *failed)
        check({v for c in clients for v in c.versions} == {"v1", "v2"}, "both versions answered")
        check(all(len(c.texts) == 1 for c in clients), "the same question had the same answer every time", *[c.texts for c in clients])
        note(f"gap between pieces: median {1000 * gaps[len(gaps) // 2]:.1f} ms, p99 {1000 * gaps[len(gaps) * 99 // 100]:.1f} ms, longest {1000 * gaps[-1]:.1f} ms; "
             f"longest pause without a worker {pause} us")
        status = control.ask(get_status=pb.GetStatus()).status
        check(sum(r.failed for r in status.routes) == 0 and all(r.active == 0 for r in status.routes), "the gateway counts no failure", status)
        check(len(status.routes) == 1, "the worker that is routed no more was let go", status)
    finally:
        for p in [gateway, *workers]:
            p.terminate()
        codes = [p.wait(30 * SLOW) for p in [gateway, *workers]]
    check(codes == [0, 0, 0], "all end well on SIGTERM", codes)
    done()


main()

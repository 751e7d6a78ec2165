"""A fleet on this machine's loopback: one distributor, some agents, an operator, with real certificates and keys, all made by the
`skiff` command as a user would.  The end-to-end tests and the demo start theirs here.

    with Fleet(folder, build) as fleet:
        fleet.publish("v1.gguf", "1.0")
        box = fleet.add_agent("box-1")
        fleet.wait("box-1", version="1.0", phase="confirmed")
        print(box.chat("Hello"))
"""
import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time

SLOW = float(os.environ.get("SKF_SLOW", "1"))
MODEL = "assistant"


class Failed(Exception):
    pass


def wait_for(what, seconds, condition, step=0.05):
    """Calls condition until it gives something true; returns that."""
    end = time.monotonic() + seconds * SLOW
    while True:
        got = condition()
        if got:
            return got
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds * SLOW:.0f} s")
        time.sleep(step)


class Process:
    """A program with its log in a file. `first_line` waits for what it prints on stdout when it is ready."""

    def __init__(self, command, log, env=None):
        self.command, self.log, self.env, self.p = command, log, env, None

    def start(self):
        out = open(self.log, "ab")
        self.p = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=out, stdin=subprocess.DEVNULL, env=self.env, start_new_session=True)
        out.close()
        self.lines = []
        threading.Thread(target=self._read, args=(self.p.stdout,), daemon=True).start()
        return self

    def _read(self, pipe):
        for line in pipe:
            self.lines.append(line.decode(errors="replace").strip())

    def first_line(self, seconds=20):
        def ready():
            if self.lines:
                return self.lines[0]
            if self.p.poll() is not None:
                raise Failed(f"{os.path.basename(self.command[0])} ended with {self.p.returncode}: {self.tail()}")
        return wait_for(f"{self.command[0]}: ready", seconds, ready)

    def tail(self, n=5):
        try:
            return " | ".join(open(self.log, errors="replace").read().splitlines()[-n:])
        except OSError:
            return ""

    def alive(self):
        return self.p is not None and self.p.poll() is None

    def kill(self):
        """kill -9, this process only."""
        if self.alive():
            self.p.kill()
        if self.p:
            self.p.wait()

    def stop(self, seconds=20):
        """As systemd would: SIGTERM, and SIGKILL to the whole session when that does not help."""
        if self.p is None:
            return
        if self.alive():
            self.p.terminate()
            try:
                self.p.wait(seconds * SLOW)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.p.wait()


class Box(Process):
    """An agent with its gateway."""

    def __init__(self, fleet, name, port, args):
        self.fleet, self.name, self.port = fleet, name, port
        self.dir = os.path.join(fleet.dir, name)
        super().__init__([fleet.bin("skiff-agent"), "--dir", self.dir, "--centre", fleet.address, "--listen", f"127.0.0.1:{port}", *args],
                         os.path.join(fleet.dir, name + ".log"), fleet.env)

    def request(self, method, path, body=None, timeout=120):
        """(status, headers, bytes)"""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)
        try:
            c.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"} if body is not None else {})
            r = c.getresponse()
            return r.status, r.headers, r.read()
        finally:
            c.close()

    def chat(self, text, max_tokens=48, **more):
        """The answer's text and the version that gave it."""
        status, headers, body = self.request("POST", "/v1/chat/completions", dict(
            model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=max_tokens, temperature=0, **more))
        if status != 200:
            raise Failed(f"{self.name}: {status} {body[:200]!r}")
        return json.loads(body)["choices"][0]["message"]["content"], headers.get("x-skiff-version")

    def stream(self, text, max_tokens=48, timeout=120, **more):
        """One streamed chat: {'text', 'version', 'gaps' (seconds between pieces), 'first' (seconds to the first), 'finish'}. Raises when cut."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)
        try:
            begun = last = time.monotonic()
            c.request("POST", "/v1/chat/completions", json.dumps(dict(model=MODEL, messages=[{"role": "user", "content": text}], max_tokens=max_tokens,
                      temperature=0, stream=True, **more)), {"Content-Type": "application/json"})
            r = c.getresponse()
            if r.status != 200:
                raise Failed(f"{self.name}: {r.status} {r.read()[:200]!r}")
            said, gaps, first, finish = "", [], None, None
            for raw in r:
                line = raw.decode().strip()
                if not line.startswith("data: "):
                    continue
                if line == "data: [DONE]":
                    if finish is None:
                        raise Failed(f"{self.name}: stream without a finish_reason")
                    return {"text": said, "version": r.headers.get("x-skiff-version"), "gaps": gaps, "first": first, "finish": finish}
                got = json.loads(line[6:])
                if "error" in got:
                    raise Failed(f"{self.name}: {got['error']}")
                now = time.monotonic()
                if first is None:
                    first = now - begun
                else:
                    gaps.append(now - last)
                last = now
                for choice in got.get("choices", []):
                    said += choice.get("delta", {}).get("content") or ""
                    finish = choice.get("finish_reason") or finish
            raise Failed(f"{self.name}: stream cut after {len(said)} characters")
        finally:
            c.close()

    def _processes(self):
        """(process id, name, parent, session) of everything that runs and is no zombie."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as f:
                    name, rest = f.read().rsplit(")", 1)
            except OSError:
                continue
            state, parent, _, session = rest.split()[:4]
            if state != "Z":
                yield int(pid), name.split("(", 1)[1], int(parent), int(session)

    def children(self, program):
        """Process ids of this agent's gateway or workers."""
        return [pid for pid, name, parent, _ in self._processes() if parent == self.p.pid and name == program[:15]]

    def session(self):
        """Process ids of everything this agent left or has running."""
        return [pid for pid, _, _, session in self._processes() if session == self.p.pid]

    def store(self):
        """Every byte of the store hashed; its versions and slots."""
        r = subprocess.run([self.fleet.bin("skiff-agent"), "--check-store", self.dir], capture_output=True, text=True, timeout=300 * SLOW)
        if r.returncode:
            raise Failed(f"{self.name}: {r.stderr.strip()}")
        return json.loads(r.stdout)

    def ready(self, seconds=60):
        """Waits until it answers with some version; returns that."""
        def version():
            try:
                status, _, body = self.request("GET", "/health", timeout=5)
            except OSError:
                return None
            return status == 200
        wait_for(f"{self.name}: answers", seconds, version, 0.1)


class Clients:
    """`count` clients that keep asking a box for streamed answers until stopped; every failure is kept."""

    def __init__(self, box, count=4, max_tokens=24):
        self.box, self.failed, self.answers, self.gap, self.versions = box, [], 0, 0.0, set()
        self.max_tokens, self._end, self._lock = max_tokens, threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(count)]

    def _ask(self, number):
        n = 0
        while not self._end.is_set():
            n += 1
            try:
                r = self.box.stream(f"Client {number}, question {n}: tell me about lists in Python.", self.max_tokens)
            except Exception as e:  # noqa: BLE001 - every failure counts
                with self._lock:
                    self.failed.append(f"{type(e).__name__}: {e}")
                time.sleep(0.1)
                continue
            with self._lock:
                self.answers += 1
                self.versions.add(r["version"])
                self.gap = max([self.gap, *r["gaps"]])

    def start(self):
        for t in self._threads:
            t.start()
        return self

    def stop(self):
        self._end.set()
        for t in self._threads:
            t.join(180 * SLOW)
        return self


class Fleet:
    def __init__(self, folder, build, name="test-fleet"):
        self.dir, self.build, self.name = os.path.abspath(folder), os.path.abspath(build), name
        self.boxes, self.centre, self.address = {}, None, None
        self.env = dict(os.environ)
        os.makedirs(self.dir, exist_ok=True)
        self._next_port = 0

    def __enter__(self):
        self.make()
        self.start_centre()
        return self

    def __exit__(self, *_):
        self.stop()

    def bin(self, program):
        return os.path.join(self.build, program)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def skiff(self, *args, check=True, timeout=600):
        r = subprocess.run([self.bin("skiff"), *args], capture_output=True, text=True, timeout=timeout * SLOW, env=self.env)
        if check and r.returncode:
            raise Failed(f"skiff {' '.join(args)}: exit {r.returncode}: {r.stderr.strip()}")
        return r

    def operate(self, verb, *args, check=True):
        """A verb that talks to the distributor, with --json; its object."""
        r = self.skiff(verb, *args, "--centre", self.address, "--tls", self.path("operator"), "--json", check=check)
        return json.loads(r.stdout) if r.returncode == 0 and r.stdout.strip() else r

    def make(self):
        """Certificates, keys, the signed repository, the distributor's folder."""
        os.makedirs(self.path("centre"), exist_ok=True)
        self.skiff("ca", "init", "--dir", self.path("ca"), "--fleet", self.name)
        self.issue("distributor", "centre", self.path("centre", "tls"), "--host", "127.0.0.1", "--host", "localhost")
        self.issue("operator", "ops", self.path("operator"))
        self.skiff("tuf", "create", "--dir", self.path("centre", "tuf"), "--keys", self.path("keys"))
        os.makedirs(self.path("centre", "keys"), exist_ok=True)
        for role in ("snapshot", "timestamp", "deltas"):  # root and targets stay with the publisher
            for ending in (".key", ".key.pub"):
                shutil.copy(self.path("keys", role + ending), self.path("centre", "keys"))
        self.root = self.path("centre", "tuf", "1.root.json")
        shutil.copy(self.root, self.path("operator", "root.json"))

    def issue(self, kind, name, folder, *more):
        self.skiff("ca", "issue", "--ca", self.path("ca"), "--kind", kind, "--name", name, "-o", folder, *more)

    def start_centre(self):
        listen = self.address or "127.0.0.1:0"
        self.centre = Process([self.bin("skiffd"), "--dir", self.path("centre"), "--listen", listen], self.path("centre.log"), self.env).start()
        line = self.centre.first_line()
        self.address = line.split()[-1]

    def free_port(self):
        import socket
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return s.getsockname()[1]

    def add_agent(self, name, *args, start=True):
        box = Box(self, name, self.free_port(), args)
        os.makedirs(os.path.join(box.dir, "tuf"), exist_ok=True)
        self.issue("device", name, os.path.join(box.dir, "tls"))
        shutil.copy(self.root, os.path.join(box.dir, "tuf", "root.json"))
        self.boxes[name] = box
        if start:
            box.start()
        return box

    def publish(self, path, version, channel="stable", model=MODEL):
        return self.operate("publish", path, "--model", model, "--version", version, "--channel", channel, "--key", self.path("keys", "targets.key"))

    def device(self, name):
        got = self.operate("devices")
        return next((d for d in got["devices"] if d["name"] == name), None)

    def wait(self, name, seconds=120, **fields):
        """Waits until `skiff devices --json` says these fields of the device."""
        def right():
            d = self.device(name)
            return d if d and all(d.get(k) == v for k, v in fields.items()) else None
        try:
            return wait_for(f"{name}: {fields}", seconds, right, 0.2)
        except Failed as e:
            raise Failed(f"{e}; it says {self.device(name)}; log: {self.boxes[name].tail()}") from None

    def stop(self):
        for box in self.boxes.values():
            box.stop()
        if self.centre:
            self.centre.stop()

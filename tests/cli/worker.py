"""skiff-worker over its socket, frame by frame: hello, generations, cancel, probe, a peer that leaves, one that does not read, quit."""
import os
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tiny_model  # noqa: E402
from tap import check, done  # noqa: E402

BUILD, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORKER = os.path.join(BUILD, "skiff-worker")
TRIES = 200  # the tiny model ends 250 tokens in 2 ms: what must meet a generation under way is tried until it does
MODEL, COPY, SOCKET = os.path.join(TMP, "tiny.gguf"), os.path.join(TMP, "copy.gguf"), os.path.join(TMP, "w.sock")


def local_proto():
    from grpc_tools import protoc
    out = os.path.join(TMP, "gen")
    os.makedirs(out, exist_ok=True)
    if protoc.main(["protoc", "-I" + os.path.join(ROOT, "proto"), "--python_out=" + out, "local.proto"]):
        raise SystemExit("protoc failed")
    sys.path.insert(0, out)
    import local_pb2
    return local_pb2


class Peer:
    def __init__(self, pb):
        self.pb, self.s = pb, socket.socket(socket.AF_UNIX)
        self.s.settimeout(30 * SLOW)
        self.s.connect(SOCKET)

    def send(self, **kind):
        m = self.pb.ToWorker(**kind).SerializeToString()
        self.s.sendall(struct.pack("<I", len(m)) + m)

    def read(self):
        """One message; None when the worker has hung up."""
        head = self._take(4)
        if head is None:
            return None
        m = self.pb.FromWorker()
        m.ParseFromString(self._take(struct.unpack("<I", head)[0]))
        return m

    def _take(self, n):
        out = b""
        while len(out) < n:
            try:
                got = self.s.recv(n - len(out))
            except ConnectionError:
                got = b""
            if not got:
                return None
            out += got
        return out

    def generate(self, number, prompt=None, messages=(), max_tokens=8, temperature=0.0, **sampling):
        g = self.pb.Generate(id=number, prompt=prompt or "", is_chat=prompt is None,
                             messages=[self.pb.ChatMessage(role=r, content=c) for r, c in messages],
                             sampling=self.pb.Sampling(max_tokens=max_tokens, temperature=temperature, **sampling))
        self.send(generate=g)

    def until_finished(self, number):
        """(started, text, tokens, finished) of one generation; others' messages are passed over."""
        started, text, tokens = None, "", 0
        while True:
            m = self.read()
            kind = m.WhichOneof("kind") if m else None
            if kind == "started" and m.started.id == number:
                started = m.started
            elif kind == "token" and m.token.id == number:
                text, tokens = text + m.token.text, tokens + 1
            elif kind == "finished" and m.finished.id == number:
                return started, text, tokens, m.finished
            elif kind is None:
                return started, text, tokens, None

    def probe(self, number, is_light=False):
        self.send(probe=self.pb.Probe(id=number, is_light=is_light))
        while True:
            m = self.read()
            if m is None or m.WhichOneof("kind") == "health":
                return m and m.health


    def warm(self, number, *texts, is_pinned=True):
        """texts: a prompt each, or a list of (role, content)."""
        self.send(warm=self.pb.Warm(id=number, is_pinned=is_pinned, texts=[
            self.pb.WarmText(prompt=t) if isinstance(t, str) else
            self.pb.WarmText(is_chat=True, messages=[self.pb.ChatMessage(role=r, content=c) for r, c in t]) for t in texts]))
        while True:
            m = self.read()
            if m is None or m.WhichOneof("kind") == "warmed":
                return m and m.warmed


def start(*args, **more):
    if os.path.exists(SOCKET):
        os.unlink(SOCKET)
    p = subprocess.Popen([WORKER, "--socket", SOCKET, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    end = time.time() + 30 * SLOW
    while not os.path.exists(SOCKET) and p.poll() is None and time.time() < end:
        time.sleep(0.02)
    return p


def test_generations(pb, peer):
    hello = peer.read().hello
    check(hello.ok and (hello.model, hello.version) == ("tiny", "7") and hello.isa and hello.rss_bytes > 0, "hello", hello)
    peer.generate(1, messages=[("system", "low"), ("user", "words")])
    started, text, tokens, f = peer.until_finished(1)
    check(started and started.prompt_tokens == f.prompt_tokens > 0, "started says the prompt's tokens", started, f)
    check(f.reason in ("stop", "length") and f.completion_tokens == tokens <= 8 and not f.error, "a chat is answered", f)
    for number in (2, 3):
        peer.generate(number, "the low", max_tokens=12)
    texts, over = {2: "", 3: ""}, 0
    while over < 2:
        m = peer.read()
        if m.WhichOneof("kind") == "token":
            texts[m.token.id] += m.token.text
        over += m.WhichOneof("kind") == "finished"
    check(texts[2] == texts[3] != "", "two at once, with one text", texts)
    peer.generate(5, "the low", max_tokens=2)
    f = peer.until_finished(5)[3]
    check(0 < f.cached_tokens < f.prompt_tokens, "what was computed of a prompt before is not computed again", f)
    peer.generate(4, "low " * 1000)
    f = peer.until_finished(4)[3]
    check((f.reason, f.error_class) == ("error", "limit") and "context" in f.error, "a prompt over the context", f)
    peer.generate(5, messages=[])
    check(peer.until_finished(5)[3] is not None, "no message at all is answered somehow")
    for _ in range(TRIES):
        peer.generate(6, "the", max_tokens=250, temperature=1.0)
        peer.generate(6, "the", max_tokens=250)
        ends = [peer.until_finished(6)[3] for _ in range(2)]
        if any((f.reason, f.error_class) == ("error", "argument") for f in ends):
            break
    check(any((f.reason, f.error_class) == ("error", "argument") for f in ends), "a number that runs already is refused", ends)


def test_warm(pb, peer):
    system = ("system", "be low and use few words, as the words of old are")
    w = peer.warm(20, [system], "raw words to come")
    check(not w.error and w.tokens > 40 and w.id == 20, "two texts are warmed", w)
    again = peer.warm(21, [system], "raw words to come")
    check(not again.error and again.tokens == w.tokens and again.cached_tokens >= w.tokens - 2, "and once more: they are there", again)
    peer.generate(22, messages=[system, ("user", "the")], max_tokens=2)
    f = peer.until_finished(22)[3]
    check(f.cached_tokens >= 40 and f.cached_tokens < f.prompt_tokens, "a conversation that begins so computes what is behind", f)
    peer.generate(23, "raw words to come and more", max_tokens=2)
    check(peer.until_finished(23)[3].cached_tokens >= 10, "so does a raw prompt")
    w = peer.warm(24, "low " * 1000)
    check(w.error_class == "limit" and "text 1" in w.error and "context" in w.error, "a text over the context is refused", w)
    w = peer.warm(25, *["x"] * 65)
    check(w.error_class == "limit" and "65" in w.error, "so are too many", w)
    w = peer.warm(26)
    check(not w.error and w.tokens == 0, "none at all are warm", w)
    w = peer.warm(27, [], "")
    check(w.id == 27, "empty ones are answered somehow", w)


def test_cancel(pb, peer):
    for attempt in range(TRIES):
        peer.generate(10, "the", max_tokens=250, temperature=1.0, seed=attempt, has_seed=True)
        while peer.read().WhichOneof("kind") != "token":
            pass
        peer.send(cancel=pb.CancelGenerate(id=10))
        f = peer.until_finished(10)[3]
        if f.reason == "cancelled":
            break
    check(f.reason == "cancelled", "a generation is cancelled", f)
    peer.send(cancel=pb.CancelGenerate(id=999))
    h = peer.probe(11)
    check(h.ok and h.id == 11 and h.active == 0, "a probe is answered; nothing is active", h)
    h = peer.probe(12, is_light=True)
    check(h.ok and h.id == 12, "and one that only asks whether it steps", h)


def test_lost_peers(pb, peer):
    other = Peer(pb)
    other.read()
    for i in range(8):
        other.generate(i + 1, "the", max_tokens=250, temperature=1.0)
    other.s.close()
    end, h = time.time() + 20 * SLOW, None
    while time.time() < end:
        h = peer.probe(20)
        if h.active == 0:
            break
        time.sleep(0.05)
    check(h.ok and h.active == 0, "what ran for a peer that left is cancelled", h)
    junk = Peer(pb)
    junk.read()
    junk.s.sendall(struct.pack("<I", 5) + b"\xff" * 5)
    check(junk.read() is None, "a peer that sends no message is hung up on")
    big = Peer(pb)
    big.read()
    big.s.sendall(struct.pack("<I", 0xffffffff))
    check(big.read() is None, "and one that announces 4 GiB")
    many = [Peer(pb) for _ in range(20)]
    hellos = [p.read() is not None for p in many]
    check(any(hellos) and not all(hellos), "connections are bounded", hellos)
    for p in many:
        p.s.close()
    check(peer.probe(21).ok, "and the first is served all the while")


def rss(pid):
    return int(open(f"/proc/{pid}/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_slow_peer(pb, peer, p):
    """One that asks without end and reads nothing: its memory here is bounded, and it is hung up on."""
    slow = Peer(pb)
    before, asked, hung_up = rss(p.pid), 0, False
    slow.s.settimeout(5)
    try:
        while asked < 400000 and not hung_up:
            for _ in range(500):
                asked += 1
                slow.generate(asked, " " * 2000, max_tokens=1)  # refused: over the context, with a line that says so
    except (ConnectionError, socket.timeout):
        hung_up = True
    check(hung_up and rss(p.pid) - before < (64 << 20 if SLOW == 1 else 1 << 30),  # a sanitizer keeps what was freed
          "a peer that reads nothing is hung up on", asked, rss(p.pid) - before)
    check(peer.probe(30).ok, "and costs the others nothing")


def test_quit(pb, peer, p):
    peer.generate(40, "the low", max_tokens=60, temperature=1.0, seed=3, has_seed=True)
    while peer.read().WhichOneof("kind") != "token":
        pass
    other = Peer(pb)
    other.read()
    other.send(quit=pb.Quit())
    f = peer.until_finished(40)[3]
    check(f is not None and f.reason in ("stop", "length"), "what runs is finished after quit", f)
    check(p.wait(20 * SLOW) == 0 and not os.path.exists(SOCKET), "and then the worker ends well", p.returncode)


def test_signals(pb):
    for i in range(12):  # whenever it comes: before the request is read, while it is taken, behind it
        p = start("--file", MODEL, "--threads", "1")
        peer = Peer(pb)
        peer.read()
        peer.generate(1, "the", max_tokens=250, temperature=1.0)
        time.sleep(i % 4 * 0.001)
        p.send_signal(signal.SIGTERM)
        while peer.s.recv(65536):
            pass
        if not check(p.wait(20 * SLOW) == 0, "SIGTERM ends it well, whenever it comes", p.returncode):
            break
    p = start("--file", MODEL, "--threads", "1")
    peer = Peer(pb)
    check(peer.read().hello.model == "tiny", "named by its file when nothing else is said")
    peer.generate(1, "the", max_tokens=250, temperature=1.0)
    p.send_signal(signal.SIGTERM)
    check(p.wait(20 * SLOW) == 0, "SIGTERM cancels and ends well", p.returncode)
    p = start("--file", MODEL)
    p2 = subprocess.run([WORKER, "--socket", SOCKET, "--file", MODEL], capture_output=True, text=True, timeout=60 * SLOW)
    check(p2.returncode == 1 and SOCKET in p2.stderr.splitlines()[-1], "a socket in use is one line, exit 1", p2)
    p.kill()
    p.wait()
    p = start("--file", MODEL)
    check(p.poll() is None, "a socket left by a worker that was killed is replaced")
    p.terminate()
    p.wait()


def test_usage():
    for args, status, want in ((["--help"], 0, ""), (["--version"], 0, ""), ([], 2, "needed"), (["--bogus"], 2, "unknown option"),
                               (["--socket", SOCKET, "--file", os.path.join(TMP, "none.gguf")], 1, "none.gguf"),
                               (["--socket", SOCKET, "--store", os.path.join(TMP, "none"), "--model", "m", "--version", "1"], 1, "none"),
                               (["--socket", SOCKET, "--store", "s"], 2, "needs --model"), (["--socket", SOCKET, "--file", "f", "--threads", "0"], 2, "number"),
                               (["--socket", "/nonexistent/x.sock", "--file", MODEL], 1, "/nonexistent/x.sock")):
        r = subprocess.run([WORKER, *args], capture_output=True, text=True, timeout=60 * SLOW)
        check(r.returncode == status and want in r.stderr and r.stderr.count("\n") <= 1 and bool(r.stdout) == (status == 0),
              f"{' '.join(os.path.basename(a) for a in args) or 'nothing'}: exit {status}", r)


def test_what_is_warm_outlives_a_worker(pb):
    """Read by the next worker, made anew when it is broken, never half written."""
    kept, prompt = os.path.join(TMP, "warm.kv"), os.path.join(TMP, "system.txt")
    text = "be low and use few words, as the words of old are"
    with open(prompt, "w") as f:
        f.write(text)
    args = ["--file", MODEL, "--model", "tiny", "--version", "7", "--warm", "@" + prompt, "--warm", "another one", "--cache-file", kept]
    env = dict(os.environ, SKF_LOG="info")

    def once(what, said, *more):
        p = start(*args, *more, env=env)
        peer = Peer(pb)
        cache = peer.read().hello.cache
        peer.generate(1, messages=[("system", text), ("user", "the")], max_tokens=6)
        _, answer, _, f = peer.until_finished(1)
        p.terminate()
        err = p.communicate()[1]
        check(said in err and cache.pinned_bytes > 0 and f.cached_tokens > 40, what, err, cache, f)
        return answer

    answer = once("computed at the first start", " 0 were read")
    whole = open(kept, "rb").read()
    pages = struct.unpack_from("<I", whole, 44)[0]
    same = once("read at the next", f"{pages} pages of keys and values are warm, {pages} were read")
    check(same == answer and open(kept, "rb").read() == whole and os.stat(kept).st_mode & 0o777 == 0o600, "with the same answer, and left as it is")
    tiny_model.write(COPY, seed=4)
    once("another model's is made anew", "another model's, or of another type; it is made anew", "--file", COPY)
    once("and this one's again", "it is made anew")
    with open(kept, "r+b") as f:
        f.seek(5000)
        f.write(b"xx")
    check(once("a broken one is made anew", "does not have its digest; it is made anew") == answer, "with the same answer")
    for _ in range(6):
        if os.path.exists(kept):
            os.unlink(kept)
        p = subprocess.Popen([WORKER, "--socket", SOCKET, *args], stderr=subprocess.DEVNULL)
        while not any(name.startswith("warm.kv") for name in os.listdir(TMP)) and p.poll() is None:
            pass
        p.kill()
        p.wait()
        if not os.path.exists(kept):
            break
    check(once("a worker that is killed while it writes leaves nothing that stands in the way", "pages of keys and values are warm") == answer
          and [n for n in os.listdir(TMP) if n.startswith("warm.kv")] == ["warm.kv"], "and nothing beside it", os.listdir(TMP))
    r = subprocess.run([WORKER, "--socket", SOCKET, "--file", MODEL, "--warm", "@" + kept + ".no"], capture_output=True, text=True)
    check(r.returncode == 1 and r.stderr.splitlines()[-1].endswith("warm.kv.no: No such file or directory"), "a text that is not there", r.stderr)
    r = subprocess.run([WORKER, "--socket", SOCKET, "--file", MODEL, "--cache-file", kept], capture_output=True, text=True)
    check((r.returncode, r.stderr) == (2, "skiff-worker: --cache-file keeps what --warm names (--help says more)\n"), "no texts", r)


def main():
    pb = local_proto()
    tiny_model.write(MODEL, seed=3)
    p = start("--file", MODEL, "--name", "tiny", "--version", "7", "--threads", "1")
    peer = Peer(pb)
    test_generations(pb, peer)
    test_warm(pb, peer)
    test_cancel(pb, peer)
    test_lost_peers(pb, peer)
    test_slow_peer(pb, peer, p)
    test_quit(pb, peer, p)
    test_signals(pb)
    test_usage()
    test_what_is_warm_outlives_a_worker(pb)
    done()


main()

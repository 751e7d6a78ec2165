"""skiff serve: answers as OpenAI's API does, starts again what dies, leaves nothing behind; and says why when it cannot."""
import http.client
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tiny_model  # noqa: E402
from tap import check, done  # noqa: E402

BUILD, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFF = os.path.join(BUILD, "skiff")
MODEL = os.path.join(TMP, "tiny.gguf")
ENV = dict(os.environ, XDG_RUNTIME_DIR=TMP)


class Serve:
    def __init__(self, *args, wait=True):
        self.p = subprocess.Popen([SKIFF, "serve", "-m", MODEL, "--threads", "1", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, env=ENV)
        if wait:
            self.line = self.p.stdout.readline()
            m = re.match(r"(\S+) on http://(.*):(\d+)/v1 \(Ctrl-C stops\)\n$", self.line)
            self.name, self.host, self.port = (m.group(1), m.group(2), int(m.group(3))) if m else (None, None, None)

    def ask(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * SLOW)
        try:
            c.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"} if body is not None else {})
            r = c.getresponse()
            return r.status, dict(r.headers), r.read().decode()
        finally:
            c.close()

    def children(self):
        """{program: pid} of this server's own children."""
        out = {}
        for pid in os.listdir("/proc"):
            if not pid.isdigit():
                continue
            try:
                stat = open(f"/proc/{pid}/stat").read()
            except OSError:
                continue
            name, rest = stat[stat.index("(") + 1:stat.rindex(")")], stat[stat.rindex(")") + 2:].split()
            if int(rest[1]) == self.p.pid and rest[0] != "Z":
                out[name] = int(pid)
        return out

    def stop(self, sig=signal.SIGINT):
        """(exit status, stderr)"""
        self.p.send_signal(sig)
        try:
            _, err = self.p.communicate(timeout=20 * SLOW)
        except subprocess.TimeoutExpired:
            self.p.kill()
            _, err = self.p.communicate()
            return "hangs", err
        return self.p.returncode, err


def wait_for(condition, seconds=20):
    end = time.time() + seconds * SLOW
    while time.time() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def runs_with(*args):
    r = subprocess.run([SKIFF, "serve", *args], capture_output=True, text=True, timeout=60 * SLOW, env=ENV)
    return r.returncode, r.stdout, r.stderr


def test_answers(s):
    chat = {"messages": [{"role": "user", "content": "low words"}], "max_tokens": 6, "temperature": 0}
    status, headers, body = s.ask("POST", "/v1/chat/completions", chat)
    check(status == 200 and headers.get("x-skiff-version") == "local", "a chat is answered", status, body)
    whole = json.loads(body) if status == 200 else {}
    check(whole.get("usage", {}).get("completion_tokens", 0) in range(1, 7) and whole["choices"][0]["finish_reason"] in ("stop", "length"),
          "with usage and a finish_reason", body)
    status, headers, body = s.ask("POST", "/v1/chat/completions", dict(chat, stream=True, stream_options={"include_usage": True}))
    events = [e[6:] for e in body.split("\n\n") if e.startswith("data: ")]
    text = "".join(c["delta"].get("content", "") for e in events[:-1] for c in json.loads(e)["choices"])
    check(status == 200 and events[-1] == "[DONE]" and text == whole["choices"][0]["message"]["content"], "the same text as a stream", body)
    usage = json.loads(events[-2])["usage"]
    cached = usage.pop("prompt_tokens_details")["cached_tokens"]
    check(whole["usage"].pop("prompt_tokens_details")["cached_tokens"] == 0 < cached < usage["prompt_tokens"], "what was computed is not computed again", body)
    for u in (usage, whole["usage"]):
        check(set(u.pop("completion_tokens_details")) == {"accepted_prediction_tokens", "rejected_prediction_tokens"}, "guesses are counted", u)
    check(usage == whole["usage"], "and the same usage", body)
    one = s.ask("POST", "/v1/completions", {"prompt": "the low", "max_tokens": 20, "temperature": 1, "seed": 5})[2]
    two = s.ask("POST", "/v1/completions", {"prompt": "the low", "max_tokens": 20, "temperature": 1, "seed": 5})[2]
    check(json.loads(one)["choices"] == json.loads(two)["choices"], "a seed gives the same text again", one, two)
    told = {"type": "content", "content": json.loads(one)["choices"][0]["text"]}
    body = s.ask("POST", "/v1/completions", {"prompt": "the low", "max_tokens": 20, "temperature": 1, "seed": 5, "prediction": told})[2]
    check(json.loads(body)["choices"] == json.loads(one)["choices"], "what the client expects changes nothing of it", body)
    accepted = json.loads(body)["usage"]["completion_tokens_details"]["accepted_prediction_tokens"]
    drafted = re.search(r"^skiff_tokens_accepted_total (\d+)$", s.ask("GET", "/metrics")[2], re.M)
    check(accepted > 0 and drafted and int(drafted.group(1)) >= accepted, "and is said sooner", body)
    status, _, body = s.ask("POST", "/v1/completions", {"prompt": "low " * 4000})
    check(status == 400 and json.loads(body)["error"]["code"] == "context_length_exceeded", "a prompt over the context is a 400", status, body)
    status, _, body = s.ask("POST", "/v1/chat/completions", {"model": "gpt-4", "messages": [{"role": "user", "content": "x"}]})
    check(status == 404 and json.loads(body)["error"]["code"] == "model_not_found", "an unknown model is a 404", status, body)
    status, _, body = s.ask("GET", "/v1/models")
    check([m["id"] for m in json.loads(body)["data"]] == ["tiny"], "the model is listed by its file's name", body)
    m = s.ask("GET", "/metrics")[2]
    check(all("# TYPE skiff_kv_cache_" + line in m for line in ("bytes gauge", "hit_tokens_total counter", "evicted_pages_total counter"))
          and 'tier="pinned"} 0\n' in m, "metrics of keys and values", m)
    check("skiff_requests_ok_total" in s.ask("GET", "/metrics")[2] and s.ask("GET", "/health")[0] == 200, "metrics and health")


def test_disconnect(s):
    body = json.dumps({"prompt": "the", "max_tokens": 250, "temperature": 1, "stream": True, "seed": 1}).encode()
    c = socket.create_connection(("127.0.0.1", s.port))
    c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    c.recv(100)
    c.close()
    idle = wait_for(lambda: "\nskiff_requests_active 0\n" in s.ask("GET", "/metrics")[2])
    check(idle, "a client that leaves frees its place")


def test_deaths(s):
    before = s.children()
    check(set(before) == {"skiff-gateway", "skiff-worker"}, "two programs run", before)
    os.kill(before["skiff-worker"], signal.SIGKILL)
    status, _, body = s.ask("POST", "/v1/completions", {"prompt": "the", "max_tokens": 3})
    check(status == 200, "a request just after the worker was killed is answered", status, body)
    check(s.children().get("skiff-worker") not in (None, before["skiff-worker"]), "by a new worker", before, s.children())
    os.kill(before["skiff-gateway"], signal.SIGKILL)

    def answers():
        try:
            return s.ask("GET", "/health")[0] == 200
        except OSError:
            return False
    check(wait_for(answers) and s.children().get("skiff-gateway") != before["skiff-gateway"], "a killed gateway comes back on the same port")
    return s.children()


def test_stop():
    s = Serve("--listen", "127.0.0.1:0")
    children = s.children()
    os.kill(s.p.pid, signal.SIGKILL)
    s.p.communicate()
    check(wait_for(lambda: not any(alive(p) for p in children.values())), "gateway and worker end with a server that was killed", children)
    subprocess.run(["rm", "-rf", *[os.path.join(TMP, d) for d in os.listdir(TMP) if d.startswith("skiff-serve-")]])


class UnixClient(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60 * SLOW)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60 * SLOW)
        self.sock.connect(self.path)


def chat(c, **more):
    c.request("POST", "/v1/chat/completions", json.dumps(dict(messages=[{"role": "user", "content": "Hi"}], temperature=0, max_tokens=12, **more)), {"Content-Type": "application/json"})
    r = c.getresponse()
    body = r.read().decode()
    return r.status, json.loads(body)["choices"][0]["message"]["content"] if not more else body


def test_ways_in():
    """One server, by TLS and by a Unix socket; what cannot be is refused when it starts."""
    cert, key, other, path = (os.path.join(TMP, n) for n in ("c.pem", "k.pem", "other.pem", "api.sock"))
    for k, c in ((key, cert), (other, os.path.join(TMP, "oc.pem"))):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", k, "-out", c, "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()
    s = Serve("--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key, "--unix", path, wait=False)
    line = s.p.stdout.readline()
    m = re.match(r"tiny on https://127\.0\.0\.1:(\d+)/v1 ", line)
    check(m, "it serves by TLS", line)
    tls = ssl.create_default_context(cafile=cert)
    by_tls = chat(http.client.HTTPSConnection("127.0.0.1", int(m.group(1)), timeout=60 * SLOW, context=tls))
    by_unix = chat(UnixClient(path))
    check(by_tls[0] == 200 and by_tls == by_unix, "the same answer by TLS and by the Unix socket", by_tls, by_unix)
    status, text = chat(http.client.HTTPSConnection("127.0.0.1", int(m.group(1)), timeout=60 * SLOW, context=tls), stream=True)
    check(status == 200 and text.count("data: ") > 3 and text.rstrip().endswith("[DONE]"), "a stream by TLS", status, text[-200:])
    check(stat.S_IMODE(os.stat(path).st_mode) == 0o660, "the socket is for this user and group", oct(os.stat(path).st_mode))
    plain = socket.create_connection(("127.0.0.1", int(m.group(1))), timeout=20 * SLOW)
    plain.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        said = plain.recv(100)
    except ConnectionResetError:
        said = b""
    check(not said.startswith(b"HTTP"), "nothing is answered to one who speaks no TLS", said)
    warnings.simplefilter("ignore", DeprecationWarning)
    old = ssl.create_default_context(cafile=cert)
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    try:
        chat(http.client.HTTPSConnection("127.0.0.1", int(m.group(1)), timeout=60 * SLOW, context=old))
        check(False, "TLS 1.1 is refused")
    except (ssl.SSLError, OSError):
        check(True, "TLS 1.1 is refused")
    code, out, err = runs_with("-m", MODEL, "--listen", "127.0.0.1:0", "--unix", path)
    check((code, out) == (1, "") and "somebody listens there" in err, "a socket in use is one line", code, err)
    check(s.stop()[0] == 0 and not os.path.exists(path), "the socket goes with the server")
    code, out, err = runs_with("-m", MODEL, "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", other)
    check((code, out) == (1, "") and len(err.splitlines()) == 1 and "other.pem" in err, "a key that is another certificate's is one line", code, err)
    code, out, err = runs_with("-m", MODEL, "--listen", "127.0.0.1:0", "--tls-cert", cert)
    check(code == 2 and "given together" in err, "a certificate without its key is refused", code, err)


def main():
    tiny_model.write(MODEL, seed=3)
    s = Serve("--listen", "127.0.0.1:0", "--context", "512")
    check(s.name == "tiny" and s.host == "127.0.0.1", "says where it serves", repr(s.line))
    test_answers(s)
    test_disconnect(s)
    code, out, err = runs_with("-m", MODEL, "--listen", f"127.0.0.1:{s.port}")
    check((code, out) == (1, "") and err == f"skiff: cannot listen on 127.0.0.1:{s.port}: Address already in use\n", "a port in use is one line", code, err)
    children = test_deaths(s)
    code, err = s.stop()
    check(code == 0, "Ctrl-C ends it well", code, err)
    check(not any(alive(p) for p in children.values()), "and the others with it", children)
    check(not [d for d in os.listdir(TMP) if d.startswith("skiff-serve-")], "no socket is left", os.listdir(TMP))
    test_stop()
    test_ways_in()
    s = Serve("--listen", "127.0.0.1:0")
    check(s.stop(signal.SIGTERM)[0] == 0, "SIGTERM ends it well")
    other = tiny_model.write(os.path.join(TMP, "other.gguf"), "q8_0", seed=9)
    s = Serve("-m", other, "--alias", "default=other", "--alias", "t=tiny", "--listen", "127.0.0.1:0", wait=False)
    line = s.p.stdout.readline()
    m = re.match(r"tiny, other on http://.*:(\d+)/v1 \(Ctrl-C stops\)\n$", line)
    check(m, "two models on one port", line)
    s.port = int(m.group(1))

    def answers(name):
        status, _, body = s.ask("POST", "/v1/completions", {"model": name, "prompt": "low", "max_tokens": 2})
        return json.loads(body)["model"] if status == 200 else status
    check([answers(n) for n in ("tiny", "other", "default", "t", "none")] == ["tiny", "other", "other", "tiny", 404], "asked for by names and aliases")
    check(s.stop()[0] == 0, "both end with it")
    with open(os.path.join(TMP, "cut.gguf"), "wb") as f:
        f.write(open(MODEL, "rb").read()[:5000])
    for args, status, want in (
            (["-m", os.path.join(TMP, "none.gguf")], 1, r"skiff: .*none\.gguf: No such file or directory\n"),
            (["-m", os.path.join(TMP, "cut.gguf"), "--listen", "127.0.0.1:0"], 1, r"skiff: .*cut\.gguf: .*\n"),
            (["-m", MODEL, "--listen", "nowhere"], 1, r"skiff: nowhere is no address to listen on.*\n"),
            ([], 2, r"skiff: serve: -m MODEL is missing; .*\n"),
            (["-m", MODEL, "-m", MODEL], 1, r"skiff: .*tiny\.gguf: another model is called tiny already; .*\n"),
            (["-m", MODEL, "--alias", "a=b"], 1, r"skiff: --alias a=b: NAME=MODEL wants the name of one that is served\n"),
            (["-m", MODEL, "--alias", "=tiny"], 1, r"skiff: --alias =tiny: a name has 1 to 128 bytes\n"),
            (["-m", MODEL, "--threads", "x"], 2, r"skiff: .*\n")):
        code, out, err = runs_with(*args)
        check(code == status and out == "" and re.fullmatch(want, err), f"{' '.join(os.path.basename(a) for a in args) or 'no model'}: one line, exit {status}", code, out, err)
    done()


main()

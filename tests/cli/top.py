"""skiff top, and what it reads: times of requests, histograms, workers' load; the API's keys and their limits; deadlines; clients that flood and leave."""
import http.client
import json
import os
import pty
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tiny_model  # noqa: E402
from tap import check, done  # noqa: E402

BUILD, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFF, GATEWAY = os.path.join(BUILD, "skiff"), os.path.join(BUILD, "skiff-gateway")
MODEL, KEYS = os.path.join(TMP, "tiny.gguf"), os.path.join(TMP, "keys")
ENV = dict(os.environ, XDG_RUNTIME_DIR=TMP)


class Serve:
    def __init__(self, *args):
        self.p = subprocess.Popen([SKIFF, "serve", "-m", MODEL, "--threads", "1", "--listen", "127.0.0.1:0", "--context", "512", *args], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, env=ENV)
        self.port = int(re.search(r":(\d+)/v1", self.p.stdout.readline()).group(1))
        self.url = f"http://127.0.0.1:{self.port}"

    def ask(self, method, path, body=None, key=None, **more):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * SLOW)
        headers = {k.replace("_", "-"): v for k, v in more.items()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key:
            headers["Authorization"] = "Bearer " + key
        try:
            c.request(method, path, json.dumps(body) if body is not None else None, headers)
            r = c.getresponse()
            return r.status, dict(r.headers), r.read().decode()
        finally:
            c.close()

    def metrics(self):
        return dict(m.groups() for m in re.finditer(r"^(\S+) (\S+)$", self.ask("GET", "/metrics")[2], re.M))

    def gateway(self):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                stat = open(f"/proc/{pid}/stat").read()
            except OSError:
                continue
            if "(skiff-gateway)" in stat and int(stat.rsplit(")", 1)[1].split()[1]) == self.p.pid:
                return int(pid)

    def stop(self):
        self.p.send_signal(signal.SIGINT)
        return self.p.wait(20 * SLOW), self.p.stderr.read()


def top(*args):
    r = subprocess.run([SKIFF, "top", *args], capture_output=True, text=True, timeout=60 * SLOW, env=ENV)
    return r.returncode, r.stdout, r.stderr


def wait_for(condition, seconds=20):
    end = time.time() + seconds * SLOW
    while time.time() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


CHAT = {"messages": [{"role": "user", "content": "low words"}], "max_tokens": 6, "temperature": 0}


def test_times(s):
    status, headers, body = s.ask("POST", "/v1/chat/completions", CHAT)
    check(status == 200 and re.fullmatch(r"queue;dur=[\d.]+, prefill;dur=[\d.]+, decode;dur=[\d.]+, sample;dur=[\d.]+, write;dur=[\d.]+, total;dur=[\d.]+",
                                         headers.get("Server-Timing", "")), "an answer says where its time went", headers)
    body = s.ask("POST", "/v1/chat/completions", dict(CHAT, stream=True, stream_options={"include_usage": True}, priority="batch"))[2]
    t = json.loads(body.split("data: ")[-2])["x_skiff"]["timing"]
    check(set(t) == {"queue_ms", "prefill_ms", "decode_ms", "sample_ms", "write_ms", "longest_gap_ms", "total_ms"} and t["total_ms"] >= t["decode_ms"] > 0,
          "so does a stream beside its usage", t)
    m = s.metrics()
    check(m["skiff_time_to_first_token_seconds_count"] == "2" and m['skiff_request_seconds_bucket{le="+Inf"}'] == "2" and
          int(m["skiff_time_between_tokens_seconds_count"]) == int(m["skiff_tokens_total"]) - 2, "histograms count tokens and requests")
    for bad, where in ((dict(CHAT, priority="high"), "priority"), (dict(CHAT, timeout=0), "timeout"), (dict(CHAT, timeout="1"), "timeout")):
        status, _, body = s.ask("POST", "/v1/chat/completions", bad)
        check(status == 400 and json.loads(body)["error"]["param"] == where, f"{where} that cannot be is a 400", status, body)
    for name, value in (("x_skiff_priority", "x"), ("x_skiff_timeout", "-1"), ("x_skiff_timeout", "nan"), ("x_skiff_timeout", "1x")):
        status, _, body = s.ask("POST", "/v1/chat/completions", CHAT, **{name: value})
        check(status == 400 and "header x-skiff" in body, f"so is the header {name}: {value}", status, body)
    for seed in range(200):  # the tiny model ends in about as much time
        status, _, body = s.ask("POST", "/v1/completions", {"prompt": "low " * 60, "max_tokens": 250, "temperature": 1, "seed": seed}, x_skiff_timeout="0.001")
        if status != 200:
            break
    check(status == 504 and json.loads(body)["error"]["code"] == "timeout", "when its time is over a request is a 504", status, body)
    check(wait_for(lambda: s.metrics()["skiff_requests_active"] == "0"), "and leaves its place")


def test_top(s):
    code, out, err = top("--url", s.url)
    check(code == 0 and err == "" and out.startswith(f"{s.url}: ok\n") and "tiny local" in out and "first token p50" in out, "a snapshot when it is no terminal", out, err)
    wait_for(lambda: json.loads(top("--url", s.url, "--json")[1])["workers"][0]["kv_bytes"] > 0)
    code, out, err = top("--url", s.url + "/", "--json")
    j = json.loads(out)
    w = j["workers"][0]
    check(code == 0 and j["requests_ok"] >= 2 and j["tokens_per_s"] is None and j["first_token_p50_s"] > 0, "as JSON", out)
    check((w["model"], w["version"], w["up"], w["slots"]) == ("tiny", "local", True, 4) and w["resident_bytes"] > 1e6 and w["kv_bytes"] > 0, "with the worker's load", w)
    code, out, err = top("--url", s.url, "--json", "--interval", "0.2")
    check(code == 0 and json.loads(out)["tokens_per_s"] == 0 and json.loads(out)["first_token_p50_s"] is None, "of an interval", out)
    for args, status, want in ((["--url", "http://127.0.0.1:1"], 1, "127.0.0.1:1/health: "), (["--url", "ftp://127.0.0.1/x"], 1, "ftp"), (["--url", ""], 1, "skiff: "),
                               (["--interval", "0.01"], 2, "--interval"), (["--interval", "nan"], 2, "interval"), (["x"], 2, "top"), (["--unix", "/none.sock"], 1, "/health")):
        code, out, err = top(*args)
        check(code == status and out == "" and want in err and err.count("\n") == 1, f"{' '.join(args)}: exit {status} and one line", code, out, err)


def test_terminal(s):
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(SKIFF, [SKIFF, "top", "--url", s.url, "--interval", "0.1"], ENV)
    out, end = b"", time.time() + 20 * SLOW
    while out.count(b"\x1b[H") < 3 and time.time() < end:
        if select.select([fd], [], [], 0.2)[0]:
            out += os.read(fd, 65536)
    check(out.startswith(b"\x1b[?1049h\x1b[?25l") and out.count(b"\x1b[H") >= 3 and b"tokens/s" in out, "it draws anew on a terminal", out[:300])
    os.write(fd, b"q")
    try:
        while True:
            got = os.read(fd, 65536)
            if not got:
                break
            out += got
    except OSError:
        pass
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    check(status == 0 and out.endswith(b"\x1b[?25h\x1b[?1049l"), "q ends it and gives the screen back", status, out[-40:])


def make_key(name):
    return subprocess.run([GATEWAY, "--make-key", name], capture_output=True, text=True, check=True).stdout.split("\n")[:2]


def write_keys(text, mode=0o600):
    with open(KEYS, "w") as f:
        f.write(text)
    os.chmod(KEYS, mode)


def test_keys():
    (alice, a), (bob, b), (eve, e) = make_key("alice"), make_key("bob"), make_key("eve")
    write_keys(f"# who may\n{a} requests=3\n{b} priority=batch models=other\n{e} off\n")
    s = Serve("--keys", KEYS)
    for key, status, code in ((None, 401, "invalid_api_key"), ("sk-none", 401, "invalid_api_key"), (bob, 403, "model_not_allowed"), (eve, 403, "key_off")):
        got, _, body = s.ask("POST", "/v1/chat/completions", CHAT, key=key)
        check(got == status and json.loads(body)["error"]["code"] == code, f"{code}: {status}", got, body)
    check(s.ask("GET", "/v1/models")[0] == 401 and s.ask("GET", "/v1/models", key=alice)[0] == 200 and s.ask("GET", "/health")[0] == 200, "models ask for a key, health does not")
    answers = [s.ask("POST", "/v1/chat/completions", CHAT, key=alice) for _ in range(4)]
    check([x[0] for x in answers] == [200, 200, 200, 429], "three requests a minute", [x[0] for x in answers])
    h = answers[0][1], answers[3][1]
    check(h[0]["x-ratelimit-limit-requests"] == "3" and h[0]["x-ratelimit-remaining-requests"] == "2" and re.fullmatch(r"\d+\.\d{3}s", h[0]["x-ratelimit-reset-requests"]),
          "with headers that say so", h[0])
    check(10 <= int(h[1]["Retry-After"]) <= 21 and json.loads(answers[3][2])["error"]["code"] == "rate_limit_exceeded", "and when to come back", h[1])
    write_keys(f"{a} requests=1000\n{b}\nnonsense\n")
    os.kill(s.gateway(), signal.SIGHUP)
    time.sleep(0.2)
    check(s.ask("POST", "/v1/chat/completions", CHAT, key=bob)[0] == 403, "a file that cannot be read changes nothing")
    write_keys(f"{b} tokens=20\n")
    os.kill(s.gateway(), signal.SIGHUP)
    check(wait_for(lambda: s.ask("GET", "/v1/models", key=alice)[0] == 401), "who is no longer in the file is let in no more")
    status = [s.ask("POST", "/v1/chat/completions", CHAT, key=bob)[0] for _ in range(3)]
    check(status[0] == 200 and status[-1] == 429, "tokens a minute", status)
    m = s.metrics()
    check(int(m['skiff_key_tokens_total{key="bob"}']) > 20 and int(m['skiff_key_refused_total{key="bob"}']) >= 2, "keys are counted")
    s.stop()
    write_keys(f"{a}\n", 0o620)
    r = subprocess.run([SKIFF, "serve", "-m", MODEL, "--listen", "127.0.0.1:0", "--keys", KEYS], capture_output=True, text=True, timeout=60 * SLOW, env=ENV)
    check(r.returncode == 1 and r.stderr.count("\n") == 1 and "others may write it" in r.stderr, "a file that others may write is refused", r)
    r = subprocess.run([GATEWAY, "--make-key", "a b"], capture_output=True, text=True)
    check(r.returncode == 1 and r.stdout == "" and r.stderr.count("\n") == 1, "a name that cannot be", r)


def resident_kib(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1))


def test_floods(s):
    """Idle connections, clients that leave at once, one that does not read: the others are served, nothing is left."""
    body = json.dumps({"prompt": "the", "max_tokens": 250, "temperature": 1, "stream": True}).encode()
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    want = s.ask("POST", "/v1/chat/completions", CHAT)[2]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = most if most != resource.RLIM_INFINITY and most < 4096 else 4096
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    before = resident_kib(s.gateway())
    idle = [socket.create_connection(("127.0.0.1", s.port)) for _ in range(min(1000, limit - 200))]
    slow = socket.create_connection(("127.0.0.1", s.port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.sendall(request)
    got = []
    asker = threading.Thread(target=lambda: got.extend(s.ask("POST", "/v1/chat/completions", CHAT) for _ in range(10)))
    asker.start()
    for i in range(300):
        c = socket.create_connection(("127.0.0.1", s.port))
        c.sendall(request)
        if i % 3:
            c.recv(50)
        c.close()
    asker.join()
    check(s.ask("GET", "/health")[0] == 200 and resident_kib(s.gateway()) - before < 64 << 10, "a thousand idle clients lock nobody out, in little memory")
    texts = {json.loads(g[2])["choices"][0]["message"]["content"] for g in got if g[0] == 200}
    check(len(texts) == 1 and texts == {json.loads(want)["choices"][0]["message"]["content"]}, "whoever stays is told the same", [g[0] for g in got], texts)
    refused = [g for g in got if g[0] != 200]
    check(all(g[0] == 429 and 1 <= int(g[1]["Retry-After"]) <= 120 for g in refused), "or is told when to come back", refused[:2])
    slow.close()
    check(wait_for(lambda: s.metrics()["skiff_requests_active"] == "0"), "all who left have freed their places")
    for c in idle:
        c.close()


def main():
    tiny_model.write(MODEL, seed=3)
    s = Serve()
    test_times(s)
    test_top(s)
    test_terminal(s)
    test_floods(s)
    code, err = s.stop()
    check(code == 0, "it ends well", code, err)
    test_keys()
    done()


main()

"""Adapters at run time: chosen by request, side by side in one batch, loaded and unloaded on the worker's socket; run and perplexity with one."""
import concurrent.futures
import json
import os
import re
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import tiny_model  # noqa: E402
from tap import check, done  # noqa: E402

BUILD, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SKIFF = os.path.join(BUILD, "skiff")
MODEL, ONE, TWO, BAD = (os.path.join(TMP, n) for n in ("tiny.gguf", "one.gguf", "two.gguf", "bad.gguf"))
ENV = dict(os.environ, XDG_RUNTIME_DIR=TMP)
ASK = {"prompt": "the low words", "max_tokens": 40, "temperature": 0}


def ask(port, body, path="/v1/completions"):
    r = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode() if body else None, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(r, timeout=60 * SLOW) as a:
            return a.status, json.loads(a.read())
    except urllib.error.HTTPError as e:
        return e.code, json.loads(e.read())


def run(*args):
    r = subprocess.run([SKIFF, *args], capture_output=True, text=True, timeout=120 * SLOW)
    return r.returncode, r.stdout, r.stderr


def text_of(port, **more):
    status, body = ask(port, dict(ASK, **more))
    return body["choices"][0]["text"] if status == 200 else body


def test_by_request(port):
    plain, one, two = text_of(port), text_of(port, model="tiny:one"), text_of(port, adapter="two")
    check(isinstance(plain, str) and len({plain, one, two}) == 3, "each adapter has its own text", plain, one, two)
    check(text_of(port, model="tiny", adapter="one") == one, "by a field as by the model's name")
    wants = [({}, plain), ({"model": "tiny:one"}, one), ({"adapter": "two"}, two)] * 4
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        got = list(pool.map(lambda w: text_of(port, **w[0]), wants))
    check(got == [w[1] for w in wants], "the same side by side", got)
    check(ask(port, dict(ASK, model="tiny:one"))[1]["model"] == "tiny:one", "and are named in the answer")
    status, body = ask(port, dict(ASK, model="tiny:three"))
    check(status == 404 and body["error"]["code"] == "model_not_found" and "three" in body["error"]["message"], "one that is not loaded is a 404", status, body)
    status, body = ask(port, dict(ASK, model="other:one"))
    check(status == 404, "so is one of another model", status, body)
    status, body = ask(port, dict(ASK, adapter=7))
    check(status == 400 and body["error"]["param"] == "adapter", "a name that is none is a 400", status, body)
    listed = [m["id"] for m in ask(port, None, "/v1/models")[1]["data"]]
    check(listed == ["tiny", "tiny:one", "tiny:two"], "models lists them", listed)
    try:
        import openai
    except ImportError:
        return
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    said = client.completions.create(model="tiny:two", **ASK).choices[0].text
    check(said == two, "OpenAI's client gets them", said)


def test_loading(port):
    """As a peer of the worker that `serve` started."""
    from grpc_tools import protoc
    os.makedirs(os.path.join(TMP, "gen"), exist_ok=True)
    if protoc.main(["protoc", "-I" + os.path.join(ROOT, "proto"), "--python_out=" + os.path.join(TMP, "gen"), "local.proto"]):
        raise SystemExit("protoc failed")
    sys.path.insert(0, os.path.join(TMP, "gen"))
    import local_pb2 as pb
    folder = [d for d in os.listdir(TMP) if d.startswith("skiff-serve-")][0]
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30 * SLOW)
    s.connect(os.path.join(TMP, folder, "worker0.sock"))

    def read():
        n = struct.unpack("<I", s.recv(4, socket.MSG_WAITALL))[0]
        m = pb.FromWorker()
        m.ParseFromString(s.recv(n, socket.MSG_WAITALL))
        return m

    def say(**kind):
        m = pb.ToWorker(**kind).SerializeToString()
        s.sendall(struct.pack("<I", len(m)) + m)
        return read().adapters

    check(list(read().hello.adapters) == ["one", "two"], "the hello names them")
    a = say(load_adapter=pb.LoadAdapter(id=5, name="three", path=ONE))
    check(a.id == 5 and not a.error and list(a.names) == ["one", "two", "three"], "one is loaded", a)
    check(text_of(port, model="tiny:three") == text_of(port, model="tiny:one"), "and used")
    a = say(load_adapter=pb.LoadAdapter(id=6, name="four", path=BAD))
    check(a.id == 6 and a.error_class and BAD in a.error and len(a.names) == 3, "one that is none says so", a)
    a = say(load_adapter=pb.LoadAdapter(id=7, name="one", path=ONE))
    check(a.error_class == "exists", "a name is taken once", a)
    a = say(unload_adapter=pb.UnloadAdapter(id=8, name="one"))
    check(not a.error and list(a.names) == ["two", "three"], "one is unloaded", a)
    check(say(unload_adapter=pb.UnloadAdapter(id=9, name="one")).error_class, "once")
    check("not loaded" in json.dumps(text_of(port, model="tiny:one")), "and is gone")
    listed = [m["id"] for m in ask(port, None, "/v1/models")[1]["data"]]
    check(listed == ["tiny", "tiny:two", "tiny:three"], "models follows", listed)
    s.close()


def main():
    tiny_model.write(MODEL, seed=3)
    tiny_model.write_lora(ONE, seed=2, size=0.5)
    tiny_model.write_lora(TWO, seed=9, size=0.5, which=("attn_q", "attn_v", "ffn_down"))
    with open(BAD, "wb") as f:
        f.write(open(ONE, "rb").read()[:700])
    p = subprocess.Popen([SKIFF, "serve", "-m", MODEL, "--threads", "1", "--listen", "127.0.0.1:0", "--context", "512", "--adapter", f"one={ONE}",
                          "--adapter", f"two={TWO}"], stdout=subprocess.PIPE, text=True, env=ENV)
    try:
        port = int(re.search(r":(\d+)/v1", p.stdout.readline()).group(1))
        test_by_request(port)
        test_loading(port)
    finally:
        p.terminate()
        p.wait(30 * SLOW)
    merged, text = os.path.join(TMP, "merged.gguf"), os.path.join(TMP, "text.txt")
    float_model = tiny_model.write(os.path.join(TMP, "f32.gguf"), "f32", seed=3)
    check(run("merge", float_model, ONE, "-o", merged)[0] == 0, "merge")
    with open(text, "w") as f:
        f.write("the low words hello " * 40)
    values = [json.loads(run("perplexity", "-m", m, "-f", text, "--window", "64", "--json", *more)[1])["perplexity"]
              for m, more in ((float_model, ()), (merged, ()), (float_model, ("--adapter", ONE)))]
    check(abs(values[2] / values[1] - 1) < 1e-3 < abs(values[0] / values[1] - 1), "perplexity with it is that of the merged model", values)
    texts = [json.loads(run("run", "-m", m, "-p", "the low", "--raw", "-n", "30", "--json", *more)[1])["text"]
             for m, more in ((float_model, ()), (merged, ()), (float_model, ("--adapter", ONE)))]
    check(texts[2] == texts[1] != texts[0], "so is the text", texts)
    code, out, err = run("run", "-m", MODEL, "--adapter", BAD, "-p", "x")
    check(code == 1 and not out and re.fullmatch(r"skiff: .*bad\.gguf: .*\n", err), "a damaged one is one line", code, out, err)
    r = subprocess.run([os.path.join(BUILD, "skiff-worker"), "--socket", os.path.join(TMP, "x.sock"), "--file", MODEL, "--adapter", "nofile"],
                       capture_output=True, text=True, timeout=60 * SLOW)
    check(r.returncode == 1 and "NAME=FILE" in r.stderr.splitlines()[-1], "an option without a name is one line", r.stderr)
    done()


main()

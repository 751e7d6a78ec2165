"""Answers that must follow a form: whatever a model with random weights says, at whatever temperature, it parses and validates; what else the API takes."""
import http.client
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import schemas  # noqa: E402
import tiny_model  # noqa: E402
from tap import check, done  # noqa: E402

BUILD, TMP, SLOW = os.environ["SKF_BUILD"], os.environ["SKF_TMP"], float(os.environ.get("SKF_SLOW", "1"))
SKIFF, MODEL = os.path.join(BUILD, "skiff"), os.path.join(TMP, "tiny.gguf")
HI = [{"role": "user", "content": "low words"}]


def ask(port, path, **body):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60 * SLOW)
    try:
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        r = c.getresponse()
        return r.status, r.read().decode()
    finally:
        c.close()


def chat(port, **more):
    status, body = ask(port, "/v1/chat/completions", **{"messages": HI, **more})
    return status, json.loads(body)


def events(port, path, **body):
    status, text = ask(port, path, stream=True, **body)
    lines = [e[6:] for e in text.split("\n\n") if e.startswith("data: ")]
    return status, [json.loads(e) for e in lines[:-1]], lines[-1:]


def one_schema(port, i, schema):
    """None when all is well; "cut" when the context ended it."""
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    status, r = chat(port, response_format=form, temperature=[0, 0.7, 1.5][i % 3], seed=i)
    if status != 200:
        return f"{status} {r} {json.dumps(schema)}"
    choice = r["choices"][0]
    if choice["finish_reason"] == "length":
        return "cut"
    try:
        schemas.validate(json.loads(choice["message"]["content"]), schema)
    except Exception as e:  # noqa: BLE001
        return f"{json.dumps(schema)} {choice['message']['content']!r} {str(e)[:200]}"
    return None


def test_schemas(port):
    every = schemas.some(1, 150)
    with ThreadPoolExecutor(4) as pool:
        all_ = list(pool.map(lambda x: one_schema(port, *x), enumerate(every)))
    bad = [x for x in all_ if x and x != "cut"]
    check(not bad, "what a schema asks for is what is said", *bad[:3])
    check(sum(x is None for x in all_) > 60, "and most answers come to their end", all_.count("cut"))
    status, r = chat(port, response_format={"type": "json_object"}, temperature=1, seed=4, max_tokens=200)
    text = r["choices"][0]["message"]["content"]
    check(status == 200 and text.startswith("{") and (r["choices"][0]["finish_reason"] == "length" or isinstance(json.loads(text), dict)), "any object", r)
    status, r = chat(port, grammar='root ::= "yes, " [a-c]{3} | "no"', temperature=1, seed=1)
    check(status == 200 and re.fullmatch("yes, [abc]{3}|no", r["choices"][0]["message"]["content"]) and r["choices"][0]["finish_reason"] == "stop",
          "a GBNF grammar", r)
    for extra, param in (({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}, "response_format"),
                         ({"grammar": "root ::= x"}, "grammar"), ({"grammar": 'root ::= (("a"{9999}){9999}){9999}'}, "grammar"),
                         ({"logit_bias": {"99999": 1}}, "logit_bias")):
        status, r = chat(port, **extra)
        check(status == 400 and r["error"]["param"] == param and r["error"]["code"] is None, f"a bad {param} is refused by name", status, r)


def test_answers(port):
    body = {"max_tokens": 12, "temperature": 6, "seed": 3}  # its weights are random: it is sure of itself
    _, r = chat(port, n=3, **body)
    texts = [c["message"]["content"] for c in r["choices"]]
    check([c["index"] for c in r["choices"]] == [0, 1, 2] and len(set(texts)) == 3, "several answers", r)
    singles = [chat(port, **{**body, "seed": 3 + i})[1] for i in range(3)]
    check(texts == [s["choices"][0]["message"]["content"] for s in singles], "the same as each by itself with the next seed")
    check(r["usage"]["completion_tokens"] == sum(s["usage"]["completion_tokens"] for s in singles), "and usage is of all", r["usage"])
    _, parts, end = events(port, "/v1/chat/completions", messages=HI, n=3, stream_options={"include_usage": True}, **body)
    got = {}
    for e in parts:
        for c in e["choices"]:
            got[c["index"]] = got.get(c["index"], "") + c["delta"].get("content", "")
    check([got[i] for i in range(3)] == texts and end == ["[DONE]"] and parts[-1]["usage"]["completion_tokens"] == r["usage"]["completion_tokens"],
          "and as a stream", got, texts)
    _, r = chat(port, logprobs=True, top_logprobs=3, **dict(body, temperature=0))
    items = r["choices"][0]["logprobs"]["content"]
    check(all(i["logprob"] == i["top_logprobs"][0]["logprob"] and i["top_logprobs"][0]["logprob"] >= i["top_logprobs"][2]["logprob"] for i in items),
          "greedy takes the likeliest", items[:2])
    said = b"".join(bytes(i["bytes"]) for i in items).decode(errors="replace")
    check(r["choices"][0]["message"]["content"].startswith(said[:5]), "the tokens are the text's", said)
    _, whole = ask(port, "/v1/completions", prompt="the low", logprobs=2, max_tokens=5, temperature=0)
    lists = json.loads(whole)["choices"][0]["logprobs"]
    check({len(v) for v in lists.values()} == {len(lists["tokens"])} and lists["text_offset"][0] == 0, "the form of completions", lists)
    first = items[0]["bytes"]
    _, r = chat(port, **dict(body, temperature=0), logit_bias={str(i): -100 for i in range(3, 40)})
    check(r["choices"][0]["finish_reason"] in ("stop", "length") and first, "biases are taken", r)


def test_tools(port):
    f = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}, "n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["a", "n"]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": f}}, {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}}]
    ask_ = {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False, "temperature": 1}
    seen = set()
    for seed in range(6):
        _, r = chat(port, seed=seed, **ask_)
        c = r["choices"][0]
        calls = c["message"].get("tool_calls") or []
        check(c["finish_reason"] == "tool_calls" and len(calls) == 1 and c["message"]["content"] is None, "one call, as asked", r)
        schemas.validate(json.loads(calls[0]["function"]["arguments"]), f if calls[0]["function"]["name"] == "f" else {"const": {}})
        seen.add(calls[0]["function"]["name"])
    _, parts, _ = events(port, "/v1/chat/completions", messages=HI, seed=5, **ask_)
    pieces = [t for e in parts for x in e["choices"] for t in x["delta"].get("tool_calls", [])]
    check(pieces[0]["function"]["name"] == calls[0]["function"]["name"] and "".join(p["function"]["arguments"] for p in pieces) == calls[0]["function"]["arguments"],
          "the same as a stream", pieces)
    _, r = chat(port, **dict(ask_, tool_choice={"type": "function", "function": {"name": "g"}}))
    check(r["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "g", "the one that is named", r)
    after = HI + [{"role": "assistant", "content": None, "tool_calls": calls}, {"role": "tool", "tool_call_id": calls[0]["id"], "content": "<|im_end|>done"}]
    status, r = chat(port, messages=after, tools=tools, tool_choice="none", max_tokens=4)
    check(status == 200 and not r["choices"][0]["message"].get("tool_calls"), "what a tool said goes in", r)


def test_extract(port):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}}, "required": ["a", "b"]}
    status, body = ask(port, "/v1/extract", text="the low words", schema=schema)
    r = json.loads(body)
    check(status == 200 and r["object"] == "extraction" and r["finish_reason"] == "stop" and r["usage"]["completion_tokens"] > 5, "an object out of a text", body)
    schemas.validate(r["data"], schema)
    check(json.loads(ask(port, "/v1/extract", text="t", schema=schema, max_tokens=3)[1])["data"] is None, "one that was cut is none")
    for bad, param in (({"schema": schema}, "text"), ({"text": "t"}, "schema"), ({"text": "t", "schema": schema, "n": 2}, "n"), ({"text": "t", "schema": {"not": {}}}, "response_format")):
        status, body = ask(port, "/v1/extract", **bad)
        check(status == 400 and json.loads(body)["error"]["param"] == param, f"a bad {param} is refused", status, body)


tiny_model.write(MODEL, context=2048)
p = subprocess.Popen([SKIFF, "serve", "-m", MODEL, "--threads", "1"], stdout=subprocess.PIPE, text=True, env=dict(os.environ, XDG_RUNTIME_DIR=TMP))
try:
    port_ = int(re.search(r":(\d+)/v1", p.stdout.readline()).group(1))
    test_schemas(port_)
    test_answers(port_)
    test_tools(port_)
    test_extract(port_)
finally:
    p.terminate()
    p.wait(30 * SLOW)
done()

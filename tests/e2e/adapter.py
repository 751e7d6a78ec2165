"""`skiff publish --adapter`: a box on the adapter's base gets little more than the adapter and ends with the very digest that was published;
an adapter that does not fit is refused before anything is sent, one that is not what it says costs nothing but the time of a build."""
import hashlib
import json
import os
import shutil
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "lib")]
import fleet as fl  # noqa: E402
import tiny_model  # noqa: E402
from tap import check, done  # noqa: E402

TMP = os.environ["SKF_TMP"]
EXAMPLE = os.path.join(ROOT, "examples", "smollm2-135m-python-lora.gguf")
DIMS = dict(embd=256, heads=4, kv_heads=2, ff=512)
WHICH = ("attn", "ffn")


def stubs(folder):
    from grpc_tools import protoc
    os.makedirs(folder, exist_ok=True)
    if protoc.main(["protoc", "-I", ROOT, f"--python_out={folder}", f"--grpc_python_out={folder}", "proto/operator.proto", "proto/manifest.proto"]):
        raise SystemExit("protoc failed")
    sys.path.insert(0, folder)


stubs(os.path.join(TMP, "stubs"))
import grpc  # noqa: E402
from proto import manifest_pb2, operator_pb2 as op, operator_pb2_grpc as operator_grpc  # noqa: E402


def at(name):
    return os.path.join(TMP, name)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def publish(fleet, path, version, *more, check=True, channel="stable"):
    return fleet.operate("publish", path, "--model", fl.MODEL, "--version", version, "--channel", channel, "--key",
                         fleet.path("keys", "targets.key"), *more, check=check)


def chunk_files(fleet):
    return sum(len(files) for _, _, files in os.walk(fleet.path("centre", "chunks")))


def roots(box):
    return {v["version"]: v["root"] for v in box.store()["versions"]}


def refused(fleet):
    """What can be known to be wrong is said by the publisher, and nothing has changed at the distributor."""
    tiny_model.write_lora(at("huge.lora"), size=1e6, which=WHICH, **DIMS)
    tiny_model.write_lora(at("narrow.lora"))
    tiny_model.write(at("narrow.gguf"), "bf16")
    publish(fleet, at("narrow.gguf"), "narrow", channel="other")
    before = chunk_files(fleet), [v["version"] for v in fleet.operate("versions")["versions"]]
    for what, args, status, said in (
            ("an adapter of another model", ("--adapter", EXAMPLE), 1, "smollm2"),
            ("an adapter of other shapes", ("--adapter", at("narrow.lora")), 1, "shape"),
            ("an adapter with what is no number", ("--adapter", at("huge.lora")), 1, "not finite"),
            ("a model in its place", ("--adapter", at("1.gguf")), 1, "not an adapter"),
            ("a file that is not there", ("--adapter", at("none.lora")), 1, "none.lora"),
            ("a base that is not published", ("--adapter", at("2.lora"), "--adapter-base", "0.5"), 1, "0.5"),
            ("a base of other shapes", ("--adapter", at("2.lora"), "--adapter-base", "narrow"), 1, "--adapter-base"),
            ("the version itself as base", ("--adapter", at("2.lora"), "--adapter-base", "2.0"), 2, "--adapter-base"),
            ("a base without an adapter", ("--adapter-base", "1.0"), 2, "--adapter")):
        r = publish(fleet, at("2.gguf"), "2.0", *args, check=False)
        check(r.returncode == status and said in r.stderr and r.stderr.count("\n") == 1, f"{what} is refused in a line", r.returncode, r.stderr)
    r = publish(fleet, at("1.gguf"), "2.0", "--adapter", at("2.lora"), check=False)
    check(r.returncode == 1 and "already" in r.stderr, "so is a base with the version's own content", r.stderr)
    after = chunk_files(fleet), [v["version"] for v in fleet.operate("versions")["versions"]]
    check(before == after, "and nothing was sent", before, after)


def small_delta(fleet, box):
    r = publish(fleet, at("2.gguf"), "2.0", "--adapter", at("2.lora"), "--dry-run")
    size = os.path.getsize(at("2.lora"))
    check(r["adapter"] == {"base": "1.0", "bytes": size, "bytes_to_send": size, "state": "waiting"} and r["bytes_sent"] == 0
          and r["bytes_to_send"] > size, "a dry run tells of the adapter, and finds its base by the channel", r)
    r = publish(fleet, at("2.gguf"), "2.0", "--adapter", at("2.lora"))
    d = next(x for x in r["deltas"] if x["from"] == "1.0")
    check(r["adapter"]["state"] == "used" and d["adapter"] == "used", "the delta from the base is made by the adapter", r)
    plain = json.loads(fleet.skiff("diff", at("1.gguf"), at("2.gguf"), "-o", at("plain.skd"), "--json").stdout)["bytes"]
    check(d["bytes"] < 1.2 * size and 4 * d["bytes"] < plain, f"{d['bytes']} bytes for an adapter of {size}; {plain} without it", r)
    got = fleet.wait("box", version="2.0", phase="confirmed")
    check(0 < got["bytes_received"] <= d["bytes"] + 100_000 and 3 * got["bytes_received"] < plain,
          f"{got['bytes_received']} bytes reached the box on the base", got)
    check(roots(box)["2.0"] == r["root"], "which has the very content that was published", roots(box), r)
    text = fleet.skiff("publish", at("2.gguf"), "--model", fl.MODEL, "--version", "2.0", "--adapter", at("2.lora"), "--adapter-base", "1.0",
                       "--centre", fleet.address, "--tls", fleet.path("operator")).stdout
    check("from 1.0: " in text and ", by its adapter" in text and " 0 B sent" in text, "publishing again sends nothing, and says the same", text)
    v = next(v for v in fleet.operate("versions")["versions"] if v["version"] == "2.0")
    check(next(x for x in v["deltas"] if x["from"] == "1.0")["adapter"] == "used", "`skiff versions` knows", v)
    new = fleet.add_agent("new", "--watch", "1")
    fleet.wait("new", version="2.0", phase="confirmed")
    check(roots(new)["2.0"] == r["root"], "a box with nothing gets the full content")
    new.stop()


def no_use(fleet, box):
    """It fits in shape, but the version is not its base with it merged."""
    r = publish(fleet, at("3.gguf"), "3.0", "--adapter", at("2.lora"))
    d = next(x for x in r["deltas"] if x["from"] == "2.0")
    check(r["adapter"]["base"] == "2.0" and r["adapter"]["state"] == "unused" and r["adapter"]["why"] == d["adapter"] != "",
          "an adapter that is another's falls back to the plain delta, and why is said", r)
    plain = json.loads(fleet.skiff("diff", at("2.gguf"), at("3.gguf"), "-o", at("plain.skd"), "--json").stdout)["bytes"]
    check(d["bytes"] == plain, "which is what it always was", d, plain)
    fleet.wait("box", version="3.0", phase="confirmed")
    check(roots(box)["3.0"] == r["root"], "and makes what was published", r)
    text = fleet.skiff("publish", at("3.gguf"), "--model", fl.MODEL, "--version", "3.0", "--adapter", at("3.lora"), "--adapter-base", "1.0",
                       "--centre", fleet.address, "--tls", fleet.path("operator")).stdout
    check("adapter for 1.0: kept until" in text, "an adapter for a version that no box runs is kept", text)
    text = fleet.skiff("publish", at("3.gguf"), "--model", fl.MODEL, "--version", "3.0", "--adapter", at("3.lora"), "--adapter-base", "2.0",
                       "--centre", fleet.address, "--tls", fleet.path("operator")).stdout
    check("adapter for 2.0: not used" in text, "a delta that is signed stays as it is", text)


class Operator:
    """Publishes by gRPC, as no `skiff publish` would."""

    def __init__(self, fleet):
        tls = lambda name: read(fleet.path("operator", name))  # noqa: E731
        self.channel = grpc.secure_channel(fleet.address, grpc.ssl_channel_credentials(tls("ca.crt"), tls("operator.key"), tls("operator.crt")))
        self.publish = operator_grpc.OperatorStub(self.channel).Publish

    def messages(self, fleet, path, version, adapter, base):
        prefix = at("sign-" + version)
        r = fleet.operate("publish", path, "--model", fl.MODEL, "--version", version, "--out", prefix)
        fleet.skiff("sign", "--key", fleet.path("keys", "targets.key"), r["unsigned"])
        packed, data = read(r["manifest"]), read(path)
        pieces = [adapter[i:i + (1 << 20)] for i in range(0, len(adapter), 1 << 20)]
        sent = op.PublishAdapter(base_version=base, size=len(adapter), digests=b"".join(hashlib.sha256(x).digest() for x in pieces))
        parts, off = [], 0
        for n in manifest_pb2.Manifest.FromString(packed).chunk_lengths:
            parts.append(data[off:off + n])
            off += n
        yield op.PublishMessage(begin=op.PublishBegin(manifest=packed, targets=read(r["unsigned"]), channel="stable", adapter=sent))
        for i, x in enumerate(parts + pieces):
            yield op.PublishMessage(data=op.PublishData(number=i, data=x))
        yield op.PublishMessage(finish=op.PublishFinish())

    def status(self, messages):
        """(code, text) of an error, or (None, the answers to Done): the call stays open until then, as its end would be the answers' too."""
        over, got = threading.Event(), []

        def all_of_them():
            yield from messages
            over.wait(60 * fl.SLOW)
        try:
            for r in self.publish(all_of_them(), timeout=60 * fl.SLOW):
                got.append(r)
                if r.WhichOneof("kind") == "done":
                    over.set()
            return None, got
        except grpc.RpcError as e:
            return e.code(), e.details()
        finally:
            over.set()


def broken(fleet, box):
    """Sent past the publisher's checks."""
    o = Operator(fleet)
    junk = b"GGUF" + os.urandom(1_500_000)
    code, got = o.status(o.messages(fleet, at("4.gguf"), "4.0", junk, "3.0"))
    check(code is None and got[0].need.takes_adapter and got[0].need.adapter_bytes == len(junk), "an adapter of junk is taken", code, got)
    d = next((x for x in got[-1].done.deltas if x.from_version == "3.0"), None)
    check(d is not None and d.adapter not in ("", "used"), "and not used, as is told", got[-1])
    fleet.wait("box", version="4.0", phase="confirmed")
    check(True, "the box gets the plain delta")
    begin = next(iter(o.messages(fleet, at("5.gguf"), "5.0", b"x" * 100, "4.0"))).begin
    for what, change in (("an unknown base", dict(base_version="9")), ("a base that is no name", dict(base_version="../x")),
                         ("no bytes", dict(size=0)), ("too many bytes", dict(size=(1 << 30) + 1)), ("fewer digests than bytes", dict(size=2 << 20))):
        m = op.PublishMessage(begin=begin)
        for k, v in change.items():
            setattr(m.begin.adapter, k, v)
        code, text = o.status([m])
        check(code is not None and text.startswith("adapter"), f"{what} is refused", code, text)
    code, text = o.status([op.PublishMessage(begin=begin), op.PublishMessage(data=op.PublishData(number=10 ** 6, data=b"x"))])
    check(code == grpc.StatusCode.INVALID_ARGUMENT, "a piece that there is not is refused", code, text)
    last = len(manifest_pb2.Manifest.FromString(begin.manifest).chunk_lengths)
    code, text = o.status([op.PublishMessage(begin=begin), op.PublishMessage(data=op.PublishData(number=last, data=b"y" * 100))])
    check(code == grpc.StatusCode.DATA_LOSS, "so is one with another digest", code, text)
    o.channel.close()


def killed(fleet, box):
    """kill -9 of the distributor when all has been sent but Finish: nothing is there, and publishing again sends nothing."""
    o = Operator(fleet)
    sent = []

    def half():
        for m in o.messages(fleet, at("5.gguf"), "5.0", read(at("5.lora")), "4.0"):
            if m.WhichOneof("kind") == "finish":
                break
            sent.append(m)
            yield m
        want = chunk_files(fleet)
        while True:  # until the last piece is a file
            time.sleep(0.2)
            now = chunk_files(fleet)
            if now == want:
                break
            want = now
        fleet.centre.kill()
        time.sleep(1)
    code, _ = o.status(half())
    check(code is not None and len(sent) > 3, "the distributor is killed between the adapter and Finish", code)
    o.channel.close()
    fleet.start_centre()
    check("5.0" not in [v["version"] for v in fleet.operate("versions")["versions"]], "the version is not there")
    r = publish(fleet, at("5.gguf"), "5.0", "--adapter", at("5.lora"))
    check(r["new"] and r["bytes_sent"] == 0 and r["adapter"]["state"] == "used", "publishing again sends nothing and ends well", r)
    fleet.wait("box", version="5.0", phase="confirmed")
    check(roots(box)["5.0"] == r["root"], "and the box has it")


def main():
    folder = at("f")
    shutil.rmtree(folder, ignore_errors=True)
    tiny_model.write(at("1.gguf"), "bf16", **DIMS)
    with fl.Fleet(folder, os.environ["SKF_BUILD"]) as fleet:
        for n in (2, 3, 4, 5):
            tiny_model.write_lora(at(f"{n}.lora"), seed=n, which=WHICH, **DIMS)
            fleet.skiff("merge", at(f"{n - 1}.gguf"), at(f"{n}.lora"), "-o", at(f"{n}.gguf"))
        publish(fleet, at("1.gguf"), "1.0")
        box = fleet.add_agent("box", "--watch", "1")
        fleet.wait("box", version="1.0", phase="confirmed")
        refused(fleet)
        small_delta(fleet, box)
        no_use(fleet, box)
        broken(fleet, box)
        killed(fleet, box)
    left = [x for x in os.listdir(os.path.join(folder, "centre", "content")) if x.endswith(".part")]
    check(not left, "no scratch file is left", left)
    done()


main()

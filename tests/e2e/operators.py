"""The distributor and the operator's verbs, with boxes that are Python gRPC clients: what they are told, what they are sent, what they are
refused; and a distributor that is killed at random instants."""
import hashlib
import json
import os
import queue
import random
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.join(ROOT, "tests", "lib"), os.path.join(ROOT, "tools")]
import fleet as fl  # noqa: E402
import tiny_model  # noqa: E402
from tap import check, done, note  # noqa: E402

TMP = os.environ.get("SKF_TMP", "/tmp/skf-operator")
BUILD = os.environ.get("SKF_BUILD", os.path.join(ROOT, "build"))
SLOW = float(os.environ.get("SKF_SLOW", "1"))


def stubs(folder):
    """Python classes of our .proto files."""
    from grpc_tools import protoc
    os.makedirs(folder, exist_ok=True)
    names = ["proto/fleet.proto", "proto/operator.proto", "proto/manifest.proto"]
    if protoc.main(["protoc", "-I", ROOT, f"--python_out={folder}", f"--grpc_python_out={folder}", *names]):
        raise SystemExit("protoc failed")
    sys.path.insert(0, folder)


stubs(os.path.join(TMP, "stubs"))
import grpc  # noqa: E402
from proto import fleet_pb2 as pb, fleet_pb2_grpc as fleet_grpc, manifest_pb2, operator_pb2 as op, operator_pb2_grpc as operator_grpc  # noqa: E402


def credentials(folder, base):
    read = lambda name: open(os.path.join(folder, name), "rb").read()  # noqa: E731
    return grpc.ssl_channel_credentials(read("ca.crt"), read(base + ".key"), read(base + ".crt"))


class Box:
    """An agent in Python: says Hello, notes what it is told, installs only when asked to."""

    def __init__(self, fleet, name, tags=(), held=(), hello=True):
        self.fleet, self.name, self.tags, self.held = fleet, name, list(tags), list(held)
        folder = fleet.path(name, "tls")
        if not os.path.exists(folder):
            fleet.issue("device", name, folder)
        self.tls, self.base = folder, "device"
        self.channel = None
        if hello:
            self.connect()

    def connect(self, hello=True):
        self.close()
        self.channel = grpc.secure_channel(self.fleet.address, credentials(self.tls, self.base),
                                           [("grpc.max_receive_message_length", 16 << 20)])
        self.out, self.assigns, self.answers = queue.Queue(), queue.Queue(), queue.Queue()
        self.error = None
        self.call = fleet_grpc.FleetStub(self.channel).Session(iter(self.out.get, None))
        self.ended = threading.Event()
        self.welcome = threading.Event()
        threading.Thread(target=self._read, args=(self.call,), daemon=True).start()
        if hello:
            self.hello()

    def hello(self, protocol=1):
        self.out.put(pb.AgentMessage(hello=pb.Hello(protocol=protocol, inventory=pb.Inventory(
            agent_version="test", machine="x86_64", isa="avx2", cpus=2, runtime_level=1, tags=self.tags, versions=self.held))))

    def _read(self, call):
        try:
            for m in call:
                kind = m.WhichOneof("kind")
                if kind == "welcome":
                    self.welcome.set()
                elif kind == "assign":
                    self.assigns.put(m.assign)
                else:
                    self.answers.put(m)
        except grpc.RpcError as e:
            self.error = e
        self.ended.set()

    def assigned(self, seconds=20, version=None):
        """The next Assign (of this version: earlier ones are passed over)."""
        end = time.monotonic() + seconds * SLOW
        while True:
            a = self.assigns.get(timeout=max(end - time.monotonic(), 0.01))
            if version is None or a.version == version:
                return a

    def newest(self, version):
        """The last Assign of this version after which nothing more comes."""
        a = self.assigned(version=version)
        while True:
            try:
                a = self.assigns.get(timeout=0.5)
            except queue.Empty:
                return a

    def quiet(self, seconds=1.0):
        """True when nothing is assigned for a while."""
        try:
            self.assigns.get(timeout=seconds)
            return False
        except queue.Empty:
            return True

    def get_meta(self, name, number=1):
        self.out.put(pb.AgentMessage(get_meta=pb.GetMeta(id=number, name=name)))
        data = b""
        while True:
            m = self.answers.get(timeout=20 * SLOW).meta
            assert m.id == number and m.offset == len(data), (m.id, m.offset, len(data))
            data += m.data
            if len(data) >= m.total:
                return data if m.found else None

    def get_chunks(self, delta, ranges, number=2):
        self.out.put(pb.AgentMessage(get_chunks=pb.GetChunks(id=number, delta=delta, ranges=[
            pb.ChunkRange(first=a, count=b) for a, b in ranges])))
        got = []
        while True:
            m = self.answers.get(timeout=20 * SLOW)
            if m.WhichOneof("kind") == "chunks_end":
                return got, m.chunks_end.error
            assert m.chunk.id == number
            got.append((m.chunk.number, m.chunk.payload))

    def state(self, assign, phase, versions=None, **more):
        if versions is not None:
            self.held = versions
        self.out.put(pb.AgentMessage(state=pb.State(assignment=assign.id, model=assign.model, version=assign.version, phase=phase,
                                                    versions=self.held, **more)))

    def runs(self, assign, roots, previous=None):
        """Says that it installed what it was told."""
        held = [pb.RunningVersion(model=assign.model, version=assign.version, root=roots[assign.version], slot="active")]
        if previous:
            held.append(pb.RunningVersion(model=assign.model, version=previous, root=roots[previous], slot="previous"))
        self.state(assign, pb.PHASE_CONFIRMED, held, chunks_done=3, chunks_total=3, bytes_received=1234)

    def close(self):
        if self.channel:
            self.out.put(None)
            self.call.cancel()
            self.channel.close()
            self.channel = None


def skd_of(box, delta, chunks):
    """Fetches head, index and payloads as a box would: the .skd file's bytes."""
    index = box.get_meta(delta)
    got, error = box.get_chunks(delta, [(0, chunks // 2), (chunks // 2, chunks - chunks // 2)])
    left = struct.unpack_from("<Q", index, 16)[0] - sum(len(p) for _, p in got)
    sides = []  # behind the chunks by number, in front of them in the file
    while left > 0 and not error:
        side, error = box.get_chunks(delta, [(chunks + len(sides), 1)])
        sides += [p for _, p in side]
        left -= sum(len(p) for _, p in side)
    return index + b"".join(sides + [p for _, p in got]), [n for n, _ in got], error


def refused(call):
    try:
        call()
    except grpc.RpcError as e:
        return e.code()
    return None


def publishing(fleet, models, roots):
    r = fleet.publish(models["1.0"], "1.0")
    check(r["new"] and r["bytes_sent"] == r["size"] and r["deltas"] and r["deltas"][0]["from"] == "", "publish sends everything once", r)
    roots["1.0"] = bytes.fromhex(r["root"])
    r = fleet.publish(models["1.0"], "1.0")
    check(not r["new"] and r["bytes_sent"] == 0, "publishing the same again sends nothing", r)
    r = fleet.operate("publish", models["2.0"], "--model", fl.MODEL, "--version", "1.0", "--key", fleet.path("keys", "targets.key"), check=False)
    check(r.returncode == 1 and "published" in r.stderr and r.stderr.count("\n") == 1, "another content under the same name is refused", r.stderr)
    r = fleet.operate("publish", models["2.0"], "--model", "../x", "--version", "1", check=False)
    check(r.returncode == 2, "a name with a slash is wrong usage", r.stderr)
    r = fleet.operate("publish", models["2.0"], "--model", fl.MODEL, "--version", "2.0", "--dry-run")
    check(r["dry_run"] and 0 < r["bytes_to_send"] and r["bytes_sent"] == 0, "a dry run says what would be sent", r)
    r = fleet.operate("versions")
    check([v["version"] for v in r["versions"]] == ["1.0"], "and changes nothing", r)
    r = fleet.operate("versions", "no-such-model", check=False)
    check(r.returncode == 1 and "no-such-model" in r.stderr, "versions of a model that is not there", r.stderr)
    r = fleet.operate("publish", models["2.0"], "--model", fl.MODEL, "--version", "2.0", "--key", fleet.path("keys", "deltas.key"), check=False)
    check(r.returncode == 1 and r.stderr.count("\n") == 1, "a key that is not the targets' is refused before anything is sent", r.stderr)


def signing_elsewhere(fleet, models, roots):
    here = fleet.path("sign")
    os.makedirs(here)
    prefix = os.path.join(here, "two")
    r = fleet.operate("publish", models["2.0"], "--model", fl.MODEL, "--version", "2.0", "--out", prefix)
    check(r["unsigned"] == prefix + ".targets.json" and os.path.exists(r["manifest"]), "without a key the targets are written", r)
    r2 = fleet.operate("publish", models["2.0"], "--model", fl.MODEL, "--version", "2.0", "--targets", r["unsigned"], check=False)
    check(r2.returncode == 1, "unsigned they are refused", r2.stderr)
    fleet.skiff("sign", "--key", fleet.path("keys", "targets.key"), r["unsigned"])
    r3 = fleet.operate("publish", models["1.0"], "--model", fl.MODEL, "--version", "2.0", "--targets", r["unsigned"], check=False)
    check(r3.returncode == 1, "a file that is not what was signed is refused", r3.stderr)
    r = fleet.operate("publish", models["2.0"], "--model", fl.MODEL, "--version", "2.0", "--targets", r["unsigned"])
    check(r["new"] and "channel" not in r, "signed elsewhere, they publish", r)
    roots["2.0"] = bytes.fromhex(r["root"])
    manifest = manifest_pb2.Manifest.FromString(open(prefix + ".manifest", "rb").read())
    check(manifest.root == roots["2.0"] and manifest.needs.architecture == "llama" and manifest.size == os.path.getsize(models["2.0"])
          and len(manifest.chunk_digests) == 32 * len(manifest.chunk_lengths) and sum(manifest.chunk_lengths) == manifest.size
          and len(manifest.tensors) > 10, "the manifest says what the file is")


def written(fleet, path, version):
    """What is to be signed for a version, signed: (targets file, manifest's bytes)."""
    r = fleet.operate("publish", path, "--model", "other", "--version", version, "--out", fleet.path("sign", version))
    fleet.skiff("sign", "--key", fleet.path("keys", "targets.key"), r["unsigned"])
    return r["unsigned"], open(r["manifest"], "rb").read()


def broken_off(fleet):
    """An upload that breaks off goes on where it was; one that lies is refused; of two that were signed at once the second is told."""
    path = fleet.path("random.bin")
    with open(path, "wb") as f:
        f.write(random.Random(3).randbytes(5_500_000))
    data = open(path, "rb").read()
    targets, packed = written(fleet, path, "r1")
    second, _ = written(fleet, path, "r2")
    begin = op.PublishMessage(begin=op.PublishBegin(manifest=packed, targets=open(targets, "rb").read()))
    lengths = manifest_pb2.Manifest.FromString(packed).chunk_lengths
    finish = op.PublishMessage(finish=op.PublishFinish())
    with grpc.secure_channel(fleet.address, credentials(fleet.path("operator"), "operator")) as c:
        publish = operator_grpc.OperatorStub(c).Publish
        part = lambda n, bytes_: op.PublishMessage(data=op.PublishData(number=n, data=bytes_))  # noqa: E731
        first, wrong = data[:lengths[0]], bytes(lengths[1])
        codes = [refused(lambda m=m: list(publish(iter(m), timeout=20))) for m in (
            [begin, part(0, first), finish], [begin, part(1, wrong)], [begin, part(1, first[:-1])], [begin, part(99, first)], [begin, begin])]
        check(codes == [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INVALID_ARGUMENT,
                        grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION],
              "an upload that ends early, or sends other bytes than were signed, is refused", codes)
    r = fleet.operate("publish", path, "--model", "other", "--version", "r1", "--targets", targets)
    check(r["new"] and r["bytes_sent"] == len(data) - lengths[0], "what came before an upload broke off is not sent again", r)
    r = fleet.operate("publish", path, "--model", "other", "--version", "r2", "--targets", second, check=False)
    check(r.returncode == 1 and "in between" in r.stderr, "of two that were signed at once, the second is told to start anew", r.stderr)
    r = fleet.operate("publish", path, "--model", "other", "--version", "r2", "--key", fleet.path("keys", "targets.key"))
    check(r["bytes_sent"] == 0 and r["root"] == manifest_pb2.Manifest.FromString(packed).root.hex(), "the same content under another name costs nothing", r)


def sessions(fleet, models, roots):
    box = Box(fleet, "py-1")
    check(box.welcome.wait(10 * SLOW), "a Python client is welcomed")
    a = box.assigned()
    check(a.version == "1.0" and a.manifest == f"models/{fl.MODEL}/1.0.manifest" and a.delta.startswith("deltas/") and a.channel == "stable"
          and not a.pinned, "an empty box is assigned the channel's version, with the full content as delta", a)
    manifest = manifest_pb2.Manifest.FromString(box.get_meta(a.manifest))
    skd, numbers, error = skd_of(box, a.delta, len(manifest.chunk_lengths))
    check(not error and numbers == sorted(set(numbers)), "payloads come in the order of the request", error)
    for name, data in (("full.skd", skd), ("empty", b"")):
        open(fleet.path(name), "wb").write(data)
    fleet.skiff("apply", fleet.path("empty"), fleet.path("full.skd"), "-o", fleet.path("made.gguf"))
    check(open(fleet.path("made.gguf"), "rb").read() == open(models["1.0"], "rb").read(), "what was sent makes the published file")
    meta = json.loads(box.get_meta("timestamp.json"))
    check(meta["signed"]["_type"] == "timestamp", "metadata is served by name")
    check(box.get_meta("../keys/snapshot.key") is None and box.get_meta("models/x/1.manifest") is None
          and box.get_meta("deltas/" + "0" * 64 + "-" + "0" * 64 + ".skdx") is None, "what there is not is answered as not found")
    _, error = box.get_chunks(a.delta, [(0, 1 << 40)])
    check(error, "chunks that there are not are an error in the answer")
    got, error = box.get_chunks("deltas/none", [(0, 1)])
    check(not got and error, "so is a delta that there is not")
    box.runs(a, roots)
    fleet_wait(fleet, "py-1", version="1.0", phase="confirmed", online=True)
    check(True, "the state is seen by `skiff devices`")
    r = fl.wait_for("rollout done", 20, lambda: (lambda s: s if s["state"] == "done" else None)(status(fleet)))
    check(r["confirmed"] == 1 and r["pending"] == 0, "a rollout that reached every box is done", r)
    old = box.call
    second = Box(fleet, "py-1", held=box.held)
    check(second.welcome.wait(10 * SLOW) and box.ended.wait(10 * SLOW), "a second session of a device ends the first")
    a2 = second.assigned()
    check(a2.id == a.id and a2.delta == "", "and is told the same decision again, with nothing to fetch", a2)
    del old
    box.close()
    return second


def fleet_wait(fleet, name, seconds=20, **fields):
    def right():
        d = fleet.device(name)
        return d if d and all(d.get(k) == v for k, v in fields.items()) else None
    try:
        return fl.wait_for(f"{name}: {fields}", seconds, right, 0.1)
    except fl.Failed:
        raise fl.Failed(f"{name}: {fleet.device(name)} is not {fields}") from None


def status(fleet, channel="stable"):
    return fleet.operate("rollout", "status", "--model", fl.MODEL, "--channel", channel)


def rollout(fleet, action, *more):
    return fleet.operate("rollout", action, "--model", fl.MODEL, *more)


def rollouts(fleet, box, roots):
    r = rollout(fleet, "start", "--version", "2.0")
    check(r["state"] == "running" and r["previous"] == "1.0", "a rollout starts", r)
    a = box.assigned(version="2.0")
    check(a.delta == f"deltas/{roots['1.0'].hex()}-{roots['2.0'].hex()}.skdx", "boxes get the delta from what they run", a.delta)
    box.state(a, pb.PHASE_FETCHING, chunks_done=1, chunks_total=3)
    fleet_wait(fleet, "py-1", phase="fetching", chunks_done=1, target="2.0")
    rollout(fleet, "pause")
    check(rollout(fleet, "resume")["state"] == "running", "paused and resumed")
    r = fleet.operate("rollout", "resume", "--model", fl.MODEL, check=False)
    check(r.returncode == 1 and "running" in r.stderr, "resuming what runs is an error that says so", r.stderr)
    rollout(fleet, "pause")
    late = Box(fleet, "py-2")
    check(late.welcome.wait(10 * SLOW) and late.quiet(), "a paused rollout tells no further box")
    again = Box(fleet, "py-1", held=box.held)
    check(again.assigned().version == "2.0", "but one that was told before it was paused goes on")
    box.close()
    box = again
    rollout(fleet, "resume")
    check(late.assigned().version == "2.0", "resumed, it reaches the others")
    r = rollout(fleet, "abort")
    a = box.assigned()
    check(r["state"] == "aborted" and a.version == "1.0" and a.delta == "", "an abort sends boxes back to the version before, without a byte", a)
    box.runs(a, roots)
    check(late.assigned().version == "1.0", "those that had none too")
    rollout(fleet, "start", "--version", "2.0")
    a = box.assigned(version="2.0")
    box.state(a, pb.PHASE_RETURNED, error_class="state", error="the self-check said no")
    d = fleet_wait(fleet, "py-1", phase="returned")
    check("self-check" in d["error"], "why a box went back is shown", d)
    check(status(fleet)["failed"] == 1 and box.quiet(), "and it is not told again by itself")
    rollout(fleet, "start", "--version", "2.0")
    b = box.assigned(version="2.0")
    check(b.id != a.id, "until an operator starts anew")
    box.state(b, pb.PHASE_FAILED, error_class="wrong-base", error="not what I have")
    c = box.assigned(version="2.0")
    empty = hashlib.sha256(b"\x02" + bytes(16) + bytes(32)).hexdigest()
    check(c.id != b.id and c.delta.endswith(f"-{roots['2.0'].hex()}.skdx") and roots["1.0"].hex() not in c.delta,
          "a box whose content is not what it said gets the full content", c.delta, empty)
    box.runs(c, roots, previous="1.0")
    late.runs(late.newest("2.0"), roots)
    fleet_wait(fleet, "py-2", version="2.0", phase="confirmed")
    check(fleet.operate("devices", "py-1", "--wait", "confirmed", "--timeout", "20")["devices"][0]["version"] == "2.0", "devices --wait waits")
    late.close()
    return box


def pins(fleet, box, roots):
    r = fleet.operate("pin", "py-1", "--model", fl.MODEL, "--version", "1.0")
    a = box.assigned(version="1.0")
    check(r["devices"] == 1 and a.pinned and a.delta == "", "a pinned box goes to its version; what it still has is not sent", a)
    box.runs(a, roots, previous="2.0")
    fleet_wait(fleet, "py-1", version="1.0", pinned="1.0", target="1.0")
    rollout(fleet, "start", "--version", "2.0")
    check(box.quiet(), "a rollout passes a pinned box by")
    fleet.operate("unpin", "py-1", "--model", fl.MODEL)
    a = box.assigned(version="2.0")
    check(not a.pinned, "unpinned, it follows its channel")
    box.runs(a, roots, previous="1.0")
    fleet_wait(fleet, "py-1", version="2.0", previous="1.0", pinned="")
    for _ in range(2):
        fleet.operate("rollback", "py-1", "--model", fl.MODEL)
    a = box.assigned(version="1.0")
    check(a.pinned, "a rollback goes to the version before, said twice too", a)
    box.runs(a, roots, previous="2.0")
    fleet_wait(fleet, "py-1", version="1.0", target="1.0")
    fleet.operate("rollback", "py-1", "--model", fl.MODEL)
    time.sleep(0.5)
    check(fleet.device("py-1")["target"] == "1.0", "and once more changes nothing")
    rollout(fleet, "start", "--version", "2.0")
    check(box.assigned(version="2.0").version == "2.0", "the next rollout ends it")
    for args, what in ((("pin", "nobody", "--model", fl.MODEL, "--version", "1.0"), "an unknown device"),
                       (("pin", "py-1", "--model", fl.MODEL, "--version", "9"), "an unknown version"),
                       (("unpin", "py-2", "--model", fl.MODEL), "unpinning what is not pinned"),
                       (("rollback", "py-1", "--model", "other"), "a rollback without a version before"),
                       (("rollout", "start", "--model", fl.MODEL, "--version", "9"), "a rollout of an unknown version"),
                       (("rollout", "status", "--model", "other"), "the status of no rollout")):
        r = fleet.operate(*args, check=False)
        check(r.returncode == 1 and r.stderr.startswith("skiff: ") and r.stderr.count("\n") == 1, f"{what} is an error of one line", r.stderr)


def channels(fleet, roots):
    beta = Box(fleet, "py-3", tags=["channel=beta"])
    check(beta.quiet(0.5), "a channel without a rollout assigns nothing")
    rollout(fleet, "start", "--version", "1.0", "--channel", "beta")
    check(beta.assigned().channel == "beta", "a box follows the channel of its tag")
    other = Box(fleet, "py-4", tags=["model=other"])
    check(other.quiet(0.5), "and takes no model that its tags leave out")
    beta.close()
    other.close()
    unknown = Box(fleet, "py-5", held=[pb.RunningVersion(model=fl.MODEL, version="0.9", root=b"\7" * 32, slot="active")])
    a = unknown.assigned()
    check(a.version == "2.0" and (b"\7" * 32).hex() not in a.delta, "a box with a content that nobody knows gets the full content", a.delta)
    unknown.close()
    back = Box(fleet, "py-8", tags=["channel=none"], held=[pb.RunningVersion(model=fl.MODEL, version="2.0", root=roots["2.0"], slot="active")])
    check(back.welcome.wait(10 * SLOW) and back.quiet(0.5), "a channel that does not exist assigns nothing")
    fleet_wait(fleet, "py-8", online=True)
    fleet.operate("pin", "py-8", "--model", fl.MODEL, "--version", "1.0")
    a = back.assigned()
    index = back.get_meta(a.delta)
    check(a.delta == f"deltas/{roots['2.0'].hex()}-{roots['1.0'].hex()}.skdx" and index, "a delta that nobody foresaw is built when a box needs it")
    listed = hashlib.sha256(index).hexdigest()
    stamp = json.loads(back.get_meta("timestamp.json"))
    snapshot = json.loads(back.get_meta(f"{stamp['signed']['meta']['snapshot.json']['version']}.snapshot.json"))
    deltas = json.loads(back.get_meta(f"{snapshot['signed']['meta']['deltas.json']['version']}.deltas.json"))
    check(deltas["signed"]["targets"][a.delta]["hashes"]["sha256"] == listed, "and listed in signed metadata before the box is told")
    back.state(a, pb.PHASE_FETCHING)
    fleet_wait(fleet, "py-8", phase="fetching")
    fleet.operate("unpin", "py-8", "--model", fl.MODEL)
    m = back.answers.get(timeout=20 * SLOW)
    check(m.WhichOneof("kind") == "cancel" and m.cancel.assignment == a.id, "an assignment that nothing takes the place of is cancelled", m)
    fleet.operate("pin", "py-8", "--model", fl.MODEL, "--version", "1.0")
    check(back.assigned().id != a.id, "and a new pin is a new decision")
    back.close()


def strangers(fleet):
    fleet.issue("device", "thief", fleet.path("thief"))
    with grpc.secure_channel(fleet.address, credentials(fleet.path("thief"), "device")) as c:
        stub = operator_grpc.OperatorStub(c)
        codes = [refused(lambda: stub.ListDevices(op.DevicesRequest(), timeout=10)),
                 refused(lambda: stub.Pin(op.PinRequest(action="pin", device="py-1", model="m", version="1"), timeout=10)),
                 refused(lambda: stub.GetMeta(op.MetaRequest(name="timestamp.json"), timeout=10)),
                 refused(lambda: stub.RemoveVersion(op.RemoveRequest(model=fl.MODEL, version="1.0"), timeout=10)),
                 refused(lambda: list(stub.Publish(iter([op.PublishMessage(finish=op.PublishFinish())]), timeout=10)))]
        check(all(x == grpc.StatusCode.PERMISSION_DENIED for x in codes), "a device's certificate is no operator's", codes)
    with grpc.secure_channel(fleet.address, credentials(fleet.path("operator"), "operator")) as c:
        stub = fleet_grpc.FleetStub(c)
        code = refused(lambda: list(stub.Session(iter([pb.AgentMessage(hello=pb.Hello(protocol=1))]), timeout=10)))
        check(code == grpc.StatusCode.PERMISSION_DENIED, "nor an operator's a device's", code)
        publish = operator_grpc.OperatorStub(c).Publish
        codes = [refused(lambda m=m: list(publish(iter([m]), timeout=10))) for m in (
            op.PublishMessage(finish=op.PublishFinish()), op.PublishMessage(data=op.PublishData(number=0, data=b"x")),
            op.PublishMessage(begin=op.PublishBegin(manifest=b"\xff\xff")), op.PublishMessage(begin=op.PublishBegin()))]
        check(all(codes), "a publication out of order, or of nonsense, is refused", codes)
        stub = operator_grpc.OperatorStub(c)
        codes = [refused(lambda n=n: stub.GetMeta(op.MetaRequest(name=n), timeout=10)) for n in ("../registry/data.mdb", "", "/etc/passwd", "x" * 5000)]
        check(all(codes), "metadata by a strange name is refused", codes)
    fleet.skiff("ca", "init", "--dir", fleet.path("ca2"), "--fleet", fleet.name)
    fleet.skiff("ca", "issue", "--ca", fleet.path("ca2"), "--kind", "operator", "--name", "ops", "-o", fleet.path("foreign"))
    shutil.copy(fleet.path("operator", "ca.crt"), fleet.path("foreign", "ca.crt"))
    r = fleet.skiff("devices", "--centre", fleet.address, "--tls", fleet.path("foreign"), check=False)
    check(r.returncode == 1 and "not signed" in r.stderr, "a foreign certificate is named before a connection is tried", r.stderr)
    r = subprocess.run([fleet.bin("skiff"), "devices", "--centre", fleet.address, "--tls", fleet.path("operator")], capture_output=True,
                       text=True, env=dict(fleet.env, SKF_NOW=str(int(time.time()) + 40 * 365 * 86400)))
    check(r.returncode == 1 and "expired" in r.stderr, "so is an expired one", r.stderr)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        r = subprocess.run([fleet.bin("skiffd"), "--dir", fleet.path("centre"), "--listen", f"127.0.0.1:{s.getsockname()[1]}"],
                           capture_output=True, text=True, timeout=30 * SLOW)
    check(r.returncode == 1 and "another distributor" in r.stderr, "a second distributor on the same folder ends with an error", r.stderr)
    r = subprocess.run([fleet.bin("skiff"), "devices"], capture_output=True, text=True,
                       env={k: v for k, v in fleet.env.items() if not k.startswith("SKIFF_")})
    check(r.returncode == 1 and "SKIFF_CENTRE" in r.stderr, "a verb that does not know the distributor says what to give", r.stderr)


def unruly(fleet):
    box = Box(fleet, "py-6", hello=False)
    box.connect(hello=False)
    box.out.put(pb.AgentMessage(get_meta=pb.GetMeta(id=1, name="timestamp.json")))
    check(box.ended.wait(10 * SLOW), "a session without Hello is ended")
    box.connect(hello=False)
    box.hello(protocol=99)
    check(box.ended.wait(10 * SLOW) and "99" in box.error.details(), "an unknown protocol is named", box.error)
    box.connect()
    for i in range(400):
        box.out.put(pb.AgentMessage(get_meta=pb.GetMeta(id=i, name="timestamp.json")))
    box.out.put(pb.AgentMessage(state=pb.State(model="a/b", assignment="x", version="1")))
    check(box.ended.wait(20 * SLOW), "a State of a name that is none ends the session")
    box.close()


def enrolment(fleet):
    """The agent's own enrolment is tested with the agent; here: who holds no token gets nothing."""
    fleet.centre.stop()
    check(fleet.centre.p.returncode == 0, "SIGTERM ends the distributor with status 0", fleet.centre.tail())
    fleet.centre = None
    shutil.copytree(fleet.path("ca"), fleet.path("centre", "ca"))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        r = subprocess.run([fleet.bin("skiffd"), "--dir", fleet.path("centre"), "--listen", f"127.0.0.1:{port}"], capture_output=True,
                           text=True, timeout=30 * SLOW)
    said = [x for x in r.stderr.splitlines() if x.startswith("skiffd: ")]
    check(r.returncode == 1 and len(said) == 1 and str(port) in said[0], "a port in use is named", r.stderr)
    token = subprocess.run([fleet.bin("skiffd"), "--dir", fleet.path("centre"), "--enrol-token", "new-box"], capture_output=True, text=True)
    check(token.returncode == 0 and len(token.stdout.strip()) == 64, "a token is printed", token.stderr)
    fleet.centre = fl.Process([fleet.bin("skiffd"), "--dir", fleet.path("centre"), "--listen", fleet.address, "--enrol-listen", "127.0.0.1:0"],
                              fleet.path("centre.log"), fleet.env).start()
    fl.wait_for("two lines", 20, lambda: len(fleet.centre.lines) >= 2)
    where = fleet.centre.lines[1].split()[-1]
    csr = request("new-box")
    creds = grpc.ssl_channel_credentials(open(fleet.path("operator", "ca.crt"), "rb").read())
    with grpc.secure_channel(where, creds) as c:
        stub = fleet_grpc.EnrolmentStub(c)
        ask = lambda **k: stub.Enrol(pb.EnrolRequest(**k), timeout=10)  # noqa: E731
        codes = [refused(lambda: ask(name="new-box", token="0" * 64, csr=csr)), refused(lambda: ask(name="other", token=token.stdout.strip(), csr=csr)),
                 refused(lambda: ask(name="new-box", token=token.stdout.strip(), csr="nonsense"))]
        check(all(codes), "a wrong token, name or request is refused", codes)
        r = ask(name="new-box", token=token.stdout.strip(), csr=csr)
        check("BEGIN CERTIFICATE" in r.certificate and "BEGIN CERTIFICATE" in r.ca and json.loads(r.root)["signed"]["_type"] == "root",
              "the right one gives a certificate, the CA and the first root")
        check(ask(name="new-box", token=token.stdout.strip(), csr=csr).certificate, "the very same request is answered again")
        check(refused(lambda: ask(name="new-box", token=token.stdout.strip(), csr=request("new-box"))) == grpc.StatusCode.PERMISSION_DENIED,
              "another with the same token is not")
        check(refused(lambda: fleet_grpc.FleetStub(c).Session(iter([])).__next__()), "the enrolment port has no sessions")


def request(name):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    key = ec.generate_private_key(ec.SECP256R1())
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def killing(fleet, models):
    """kill -9 while something is published, again and again: publishing once more always ends well, and all is there."""
    random.seed(7)
    tries = 0
    for i in range(10):
        version = f"k{i}"
        path = fleet.path(version + ".gguf")
        tiny_model.write(path, type="q8_0", seed=1, change=0.001 * (i + 1))
        p = subprocess.Popen([fleet.bin("skiff"), "publish", path, "--model", fl.MODEL, "--version", version, "--channel", "beta", "--key",
                              fleet.path("keys", "targets.key"), "--centre", fleet.address, "--tls", fleet.path("operator"), "--json"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=fleet.env)
        time.sleep(random.uniform(0, 0.35) * SLOW)
        fleet.centre.kill()
        p.communicate(timeout=60 * SLOW)
        fleet.start_centre()
        tries += 1
        r = fleet.publish(path, version, channel="beta")
        if not r["deltas"]:
            check(False, "a publication after a kill has its deltas", r)
    names = {v["version"]: v for v in fleet.operate("versions")["versions"]}
    check(tries == 10 and all(f"k{i}" in names and names[f"k{i}"]["deltas"] for i in range(10)), "ten kills, ten versions, each with its deltas", sorted(names))
    check(names["2.0"]["channels"] == ["stable"] and names["k9"]["channels"] == ["beta"], "channels stand where they were put")
    d = {x["name"]: x for x in fleet.operate("devices")["devices"]}
    check(set(d) >= {"py-1", "py-2", "py-3"} and d["py-1"]["version"] == "1.0", "devices are remembered", sorted(d))
    box = Box(fleet, "py-7", tags=["channel=beta"])
    a = box.assigned()
    manifest = manifest_pb2.Manifest.FromString(box.get_meta(a.manifest))
    skd, _, error = skd_of(box, a.delta, len(manifest.chunk_lengths))
    open(fleet.path("k.skd"), "wb").write(skd)
    fleet.skiff("apply", fleet.path("empty"), fleet.path("k.skd"), "-o", fleet.path("k.out"))
    check(not error and open(fleet.path("k.out"), "rb").read() == open(fleet.path("k9.gguf"), "rb").read(), "and what is sent is whole")
    box.close()


def main():
    folder = os.path.join(TMP, "fleet")
    shutil.rmtree(folder, ignore_errors=True)
    fleet = fl.Fleet(folder, BUILD, "operators")
    models, roots = {}, {}
    try:
        fleet.make()
        for version, change in (("1.0", 0), ("2.0", 0.02)):
            models[version] = fleet.path(f"v{version}.gguf")
            tiny_model.write(models[version], type="q4_1", seed=1, change=change)
        fleet.start_centre()
        publishing(fleet, models, roots)
        signing_elsewhere(fleet, models, roots)
        broken_off(fleet)
        box = sessions(fleet, models, roots)
        box = rollouts(fleet, box, roots)
        pins(fleet, box, roots)
        box.close()
        channels(fleet, roots)
        strangers(fleet)
        unruly(fleet)
        killing(fleet, models)
        enrolment(fleet)
    except (fl.Failed, queue.Empty) as e:
        check(False, f"{type(e).__name__}: {e}", fleet.centre.tail(20) if fleet.centre else "")
    finally:
        fleet.stop()
    check("error" not in open(fleet.path("centre.log")).read().replace("error_class", ""), "nothing went wrong in the distributor",
          "\n".join(x for x in open(fleet.path("centre.log")) if "error" in x)[-2000:])
    note(f"{os.path.getsize(fleet.path('centre.log'))} bytes of log")
    done()


main()

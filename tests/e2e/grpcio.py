#!/usr/bin/env python3
"""gRPC as others speak it: Python's grpcio against our server, our client against a grpcio server, and a grpcio client, with code made
from the .proto files, against skiffd: a session with hello and assignment, and the operator's list."""
import json
import os
import queue
import random
import subprocess
import sys
import threading
from concurrent import futures

import grpc

from fleet import Fleet, wait_for
from tap import check, done

BUILD = os.environ["SKF_BUILD"]
ROOT = os.environ.get("SKF_ROOT", os.getcwd())
TMP = os.environ.get("SKF_TMP", "/tmp")
SLOW = float(os.environ.get("SKF_SLOW", "1"))
PEER = os.path.join(BUILD, "tests", "unit", "wire_peer")
TLS = os.path.join(ROOT, "tests", "vectors", "tls")
PATIENCE = 30 * SLOW


def pem(name, folder=TLS):
    with open(os.path.join(folder, name), "rb") as f:
        return f.read()


def channel(address, who="device", folder=TLS, ca="ca.crt", **more):
    """A grpcio channel with mutual TLS; who None: without a certificate."""
    pair = (pem(who + ".key", folder), pem(who + ".crt", folder)) if who else (None, None)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(pem(ca, folder), *pair), **more)


def status_of(call):
    """(status, details) of what this raises; OK when it does not."""
    try:
        call()
        return grpc.StatusCode.OK, ""
    except grpc.RpcError as e:
        return e.code(), e.details()


# ---- our server, their client -----------------------------------------------------------------------------------------------

def their_client(address):
    with channel(address) as c:
        unary = c.unary_unary("/test.Wire/Unary")
        check(unary(b"hello", timeout=PATIENCE) == b"hello", "grpcio client: unary answer")
        check(unary(b"who", timeout=PATIENCE) == b"spiffe://test/device/box1", "grpcio client: identity is the SPIFFE URI")
        got = status_of(lambda: unary(b"x" * 100000, timeout=PATIENCE, compression=grpc.Compression.Gzip))
        check(got[0] == grpc.StatusCode.UNIMPLEMENTED, "grpcio client: a compressed request is refused, not unpacked", got)
        got = status_of(lambda: unary(b"fail 11", timeout=PATIENCE))
        check(got == (grpc.StatusCode.NOT_FOUND, "failed with 11, as asked: é"), "grpcio client: status and UTF-8 text", got)
        got = status_of(lambda: unary(b"sleep 1500", timeout=0.2))
        check(got[0] == grpc.StatusCode.DEADLINE_EXCEEDED, "grpcio client: deadline", got)
        got = status_of(lambda: c.unary_unary("/test.Wire/Absent")(b"", timeout=PATIENCE))
        check(got[0] == grpc.StatusCode.UNIMPLEMENTED, "grpcio client: unknown method", got)
        health = c.unary_unary("/grpc.health.v1.Health/Check")
        check(health(b"", timeout=PATIENCE) == b"\x08\x01", "grpcio client: health says SERVING")
        check(health(b"\x0a\x09test.Wire", timeout=PATIENCE) == b"\x08\x01", "grpcio client: health of a service by name")
        got = status_of(lambda: health(b"\x0a\x04none", timeout=PATIENCE))
        check(got[0] == grpc.StatusCode.NOT_FOUND, "grpcio client: health of an unknown service", got)
        got = status_of(lambda: unary(b"y" * (4 * 1024 * 1024 + 1), timeout=PATIENCE))
        check(got[0] == grpc.StatusCode.RESOURCE_EXHAUSTED, "grpcio client: a message over 4 MiB is refused", got)
        echo = c.stream_stream("/test.Wire/Echo")
        sent = [bytes([i % 256]) * (i * 37) for i in range(400)]
        check(list(echo(iter(sent), timeout=PATIENCE)) == sent, "grpcio client: 400 messages there and back")
        got = status_of(lambda: list(echo(iter([b"z" * 1000] * 50), timeout=PATIENCE, compression=grpc.Compression.Gzip)))
        check(got[0] == grpc.StatusCode.UNIMPLEMENTED, "grpcio client: a compressed stream is refused", got)
        got = status_of(lambda: list(echo(iter([b"bad"]), timeout=PATIENCE)))
        check(got == (grpc.StatusCode.DATA_LOSS, "chunk 7: not what it says"), "grpcio client: a stream ended with its reason", got)
        got = status_of(lambda: list(c.stream_stream("/test.Wire/Refuse")(iter([]), timeout=PATIENCE)))
        check(got[0] == grpc.StatusCode.PERMISSION_DENIED, "grpcio client: a stream refused by identity", got)
        call = echo(iter(lambda: threading.Event().wait(3600) or b"", None))  # a request iterator that never ends
        call.cancel()
        got = status_of(lambda: next(call))
        check(got[0] == grpc.StatusCode.CANCELLED, "grpcio client: cancel", got)
        check(unary(b"still here", timeout=PATIENCE) == b"still here", "grpcio client: the connection is whole after all that")
    for who in (None, "foreign-device", "expired-device"):
        with channel(address, who) as c:
            got = status_of(lambda: c.unary_unary("/test.Wire/Unary")(b"hello", timeout=PATIENCE))
            check(got[0] == grpc.StatusCode.UNAVAILABLE, f"grpcio client: refused with {who or 'no certificate'}", got)
    with grpc.insecure_channel(address) as c:
        got = status_of(lambda: c.unary_unary("/test.Wire/Unary")(b"hello", timeout=PATIENCE))
        check(got[0] == grpc.StatusCode.UNAVAILABLE, "grpcio client: refused without TLS", got)


def our_server():
    p = subprocess.Popen([PEER, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        their_client(p.stdout.readline().split()[-1])
    finally:
        p.stdin.close()
        check(p.wait(PATIENCE) == 0, "our server ends well")


# ---- their server, our client -----------------------------------------------------------------------------------------------

def unary(request, context):
    if request.startswith(b"fail"):
        context.abort(grpc.StatusCode.NOT_FOUND, "failed, as asked: é")
    if request.startswith(b"sleep"):
        threading.Event().wait(2)
    return request


def echo(messages, context):
    for m in messages:
        if m == b"bad":
            context.abort(grpc.StatusCode.DATA_LOSS, "chunk 7: not what it says")
        yield m


def our_client():
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Wire", {
        "Unary": grpc.unary_unary_rpc_method_handler(unary), "Echo": grpc.stream_stream_rpc_method_handler(echo)}),))
    credentials = grpc.ssl_server_credentials([(pem("server.key"), pem("server.crt"))], pem("ca.crt"), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        r = subprocess.run([PEER, "call", f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=4 * PATIENCE, cwd=ROOT)
        lines = [line for line in r.stdout.splitlines() if line.startswith(("ok - ", "not ok - "))]
        for line in lines:
            check(line.startswith("ok"), "our client, grpcio server: " + line.split(" - ", 1)[1])
        check(r.returncode == 0 and len(lines) == 6, "our client ends well", r.stdout, r.stderr)
    finally:
        server.stop(None).wait()


# ---- skiffd, with code made from the .proto files ------------------------------------------------------------------------------

def compiled():
    """The modules that grpcio-tools makes of proto/fleet.proto and proto/operator.proto."""
    out = os.path.join(TMP, "protos")
    os.makedirs(out, exist_ok=True)
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", f"--python_out={out}", f"--grpc_python_out={out}",
                    "proto/fleet.proto", "proto/operator.proto"], cwd=ROOT, check=True)
    sys.path.insert(0, out)
    from proto import fleet_pb2, fleet_pb2_grpc, operator_pb2, operator_pb2_grpc
    return fleet_pb2, fleet_pb2_grpc, operator_pb2, operator_pb2_grpc


class Session:
    """A device's session: `say` sends, `hear` gives the next message of that kind and keeps what else comes."""

    def __init__(self, stub):
        self.out, self.kept = queue.Queue(), []
        self.call = stub.Session(iter(self.out.get, None), timeout=4 * PATIENCE)

    def say(self, message):
        self.out.put(message)

    def hear(self, kind):
        for i, m in enumerate(self.kept):
            if m.WhichOneof("kind") == kind:
                return getattr(self.kept.pop(i), kind)
        for m in self.call:
            if m.WhichOneof("kind") == kind:
                return getattr(m, kind)
            self.kept.append(m)
        raise RuntimeError(f"the session ended before a {kind}")

    def get(self, fleet, number, name):
        """A target or metadata file by GetMeta, all its parts."""
        self.say(fleet.AgentMessage(get_meta=fleet.GetMeta(id=number, name=name)))
        data, total = b"", None
        while total is None or len(data) < total:
            part = self.hear("meta")
            if not part.found or part.id != number or part.offset != len(data):
                return None
            data, total = data + part.data, part.total
        return data

    def end(self):
        self.out.put(None)


def device_session(fleet, stub, operator, pb):
    inventory = pb.Inventory(agent_version="0", machine="x86_64", isa="avx2", cpus=2, memory_bytes=1 << 32, disk_free=1 << 34, runtime_level=1)
    s = Session(stub)
    s.say(pb.AgentMessage(hello=pb.Hello(protocol=1, inventory=inventory)))
    welcome = s.hear("welcome")
    check(welcome.protocol == 1 and welcome.device == "box-1", "skiffd: hello is answered by welcome, by the certificate's name", welcome)
    assign = s.hear("assign")
    check((assign.model, assign.version) == ("assistant", "1.0") and assign.manifest and assign.delta, "skiffd: an assignment", assign)
    timestamp = s.get(pb, 1, "timestamp.json")
    check(timestamp and json.loads(timestamp)["signed"]["_type"] == "timestamp", "skiffd: TUF metadata over the session")
    check(bool(s.get(pb, 2, assign.manifest)), "skiffd: the manifest's bytes")
    check(s.get(pb, 3, "models/absent") is None, "skiffd: what is not there is not found")
    index = s.get(pb, 4, assign.delta)
    check(bool(index), "skiffd: the delta's index")
    s.say(pb.AgentMessage(get_chunks=pb.GetChunks(id=5, delta=assign.delta, ranges=[pb.ChunkRange(first=0, count=3)])))
    numbers = [s.hear("chunk").number for _ in range(3)]
    end = s.hear("chunks_end")
    check(numbers == [0, 1, 2] and end.id == 5 and not end.error, "skiffd: three chunks in order, and their end", numbers, end)
    s.say(pb.AgentMessage(state=pb.State(assignment=assign.id, model="assistant", version="1.0", phase=pb.PHASE_FETCHING, chunks_done=3, chunks_total=9)))

    def listed():
        return next((d for d in operator() if d.name == "box-1" and d.online and d.phase == "fetching"), None)
    d = wait_for("skiffd lists the device", 20, listed)
    check(d.target == "1.0" and d.machine == "x86_64" and d.chunks_done == 3, "skiffd: the operator's list has what the session said", d)
    s.end()


def refusals(fleet, pb, stubs, operators):
    def session(who, folder, messages):
        with channel(fleet.address, who, folder) as c:
            return status_of(lambda: list(stubs(c).Session(iter(messages), timeout=PATIENCE)))
    box, ops = fleet.path("box-1", "tls"), fleet.path("operator")
    got = session("operator", ops, [])
    check(got[0] == grpc.StatusCode.PERMISSION_DENIED, "skiffd: an operator's certificate opens no session", got)
    got = session("device", box, [pb.AgentMessage(hello=pb.Hello(protocol=7))])
    check(got[0] == grpc.StatusCode.UNIMPLEMENTED, "skiffd: another protocol is refused", got)
    got = session("device", box, [pb.AgentMessage(get_meta=pb.GetMeta(id=1, name="timestamp.json"))])
    check(got[0] not in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED), "skiffd: a session begins with hello", got)
    with channel(fleet.address, "device", box) as c:
        got = status_of(lambda: operators(c))
        check(got[0] == grpc.StatusCode.PERMISSION_DENIED, "skiffd: a device's certificate is no operator's", got)
        got = status_of(lambda: list(c.stream_stream("/skiff.v1.Fleet/Session")(iter([b"\x0a\xff\xff"]), timeout=PATIENCE)))
        check(got[0] == grpc.StatusCode.INVALID_ARGUMENT, "skiffd: bytes that are no message are refused", got)
    with channel(fleet.address, "device", ca="ca.crt") as c:  # another fleet's certificates altogether
        got = status_of(lambda: operators(c))
        check(got[0] == grpc.StatusCode.UNAVAILABLE, "skiffd: another fleet's certificates are refused", got)


def skiffd():
    pb, pb_grpc, op, op_grpc = compiled()
    with Fleet(os.path.join(TMP, "fleet"), BUILD) as fleet:
        model = fleet.path("model.bin")
        with open(model, "wb") as f:
            f.write(random.Random(7).randbytes(9 * 1024 * 1024))
        fleet.publish(model, "1.0")
        fleet.issue("device", "box-1", fleet.path("box-1", "tls"))

        def operators(c):
            return list(op_grpc.OperatorStub(c).ListDevices(op.DevicesRequest(), timeout=PATIENCE).devices)
        with channel(fleet.address, "operator", fleet.path("operator")) as ops, \
             channel(fleet.address, "device", fleet.path("box-1", "tls")) as c:
            got = op_grpc.OperatorStub(ops).ListVersions(op.VersionsRequest(), timeout=PATIENCE).versions
            check([(v.model, v.version, v.size) for v in got] == [("assistant", "1.0", 9 << 20)], "skiffd: the operator's list of versions", got)
            check(c.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=PATIENCE) == b"\x08\x01", "skiffd: health says SERVING")
            device_session(fleet, pb_grpc.FleetStub(c), lambda: operators(ops), pb)
        refusals(fleet, pb, pb_grpc.FleetStub, operators)


def main():
    our_server()
    our_client()
    skiffd()
    done()


main()

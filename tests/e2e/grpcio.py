#!/usr/bin/env python3
"""gRPC as others speak it: Python's grpcio against our server, our client against a grpcio server, and a grpcio client, with code made
from the .proto files, against skiffd: a session with hello and assignment, and the operator's list."""
import os
import subprocess
import threading
from concurrent import futures

import grpc

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


def main():
    our_server()
    our_client()
    done()


main()

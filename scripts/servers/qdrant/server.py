"""Qdrant's gRPC protocol in front of the engine that its Python package has for local use.

No registry has Qdrant's server. What a client of it sees here is Qdrant's own all the same: the
messages and services (qdrant_client.grpc), what they mean (qdrant_client.conversions), the checks
(its pydantic models), and the engine, which refuses what the server refuses. The codes of errors
are those of the server's source. What is not Qdrant's is said in DIR/faults.json: see Faults.
"""

import argparse
import collections
import concurrent.futures
import functools
import json
import os
import pathlib
import signal
import sys
import threading
import time

import grpc
import pydantic
import trustme
from qdrant_client import QdrantClient, grpc as messages
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc import collections_service_pb2_grpc, points_service_pb2_grpc, qdrant_pb2_grpc


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, code, message, metadata=()):
        self.code, self.message, self.metadata = code, message, tuple(metadata)


class Faults:
    """What goes wrong, by method, in DIR/faults.json, which can change while the server runs:

    {"Upsert": {"delay": 0.5,             seconds before it begins
                "times": 1,               so many requests (since the file changed); all, if missing
                "code": "UNAVAILABLE",    it is not done, and this is the answer
                "message": "…", "metadata": {"retry-after": "7"},
                "poison": "…",            INVALID_ARGUMENT if a point has this text in its payload
                "status": "WaitTimeout",  it is done, and this is its status
                "die_after": 3}}          the process ends when so many of its points are in
    """

    def __init__(self, path):
        self.path, self.text, self.seen, self.lock = path, None, None, threading.Lock()

    def of(self, method):
        with self.lock:
            text = self.path.read_text() if self.path.exists() else "{}"
            if text != self.text:
                self.text, self.seen = text, collections.Counter()
            fault = json.loads(text).get(method, {})
            self.seen[method] += 1
            return fault if self.seen[method] <= fault.get("times", sys.maxsize) else {}


def method(handle):
    """What all methods have in common: who may ask, what goes wrong, what an exception means."""

    @functools.wraps(handle)
    def checked(self, request, context):
        name, server = handle.__name__, self.server
        try:
            sent = dict(context.invocation_metadata()).get("api-key")
            if server.api_key is not None and sent != server.api_key:
                # As a proxy might, which a client must not repeat.
                what = "Must provide an API key" if sent is None else f"Invalid API key {sent}"
                raise Refusal(grpc.StatusCode.UNAUTHENTICATED, what)
            fault = server.faults.of(name)
            time.sleep(fault.get("delay", 0))
            if "code" in fault:
                metadata = fault.get("metadata", {}).items()
                raise Refusal(grpc.StatusCode[fault["code"]], fault.get("message", ""), metadata)
            with server.lock:
                answer = handle(self, server.engine, request, fault)
                server.note(name, request)
            return answer
        except Refusal as refusal:
            context.set_trailing_metadata(refusal.metadata)
            context.abort(refusal.code, refusal.message)
        # The engine's, and those of the models.
        except (ValueError, pydantic.ValidationError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Wrong input: {error}")

    return checked


def existing(engine, name):
    if not engine.collection_exists(name):
        raise Refusal(grpc.StatusCode.NOT_FOUND, f"Not found: Collection `{name}` doesn't exist!")
    return name


def shown(request):
    """Which parts of points are asked for."""
    show = {}
    if request.HasField("with_payload"):
        show["with_payload"] = GrpcToRest.convert_with_payload_interface(request.with_payload)
    if request.HasField("with_vectors"):
        show["with_vectors"] = GrpcToRest.convert_with_vectors_selector(request.with_vectors)
    return show


def updated(request, fault):
    usual = "Completed" if request.wait else "Acknowledged"
    status = messages.UpdateStatus.Value(fault.get("status", usual))
    return messages.PointsOperationResponse(
        result=messages.UpdateResult(operation_id=0, status=status)
    )


class Collections(collections_service_pb2_grpc.CollectionsServicer):
    def __init__(self, server):
        self.server = server

    @method
    def Get(self, engine, request, fault):
        info = engine.get_collection(existing(engine, request.collection_name))
        return messages.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    @method
    def CollectionExists(self, engine, request, fault):
        exists = engine.collection_exists(request.collection_name)
        return messages.CollectionExistsResponse(result=messages.CollectionExists(exists=exists))

    @method
    def List(self, engine, request, fault):
        all = [RestToGrpc.convert_collection_description(c) for c in engine.get_collections().collections]
        return messages.ListCollectionsResponse(collections=all)

    @method
    def Create(self, engine, request, fault):
        if engine.collection_exists(request.collection_name):
            what = f"Collection `{request.collection_name}` already exists!"
            raise Refusal(grpc.StatusCode.ALREADY_EXISTS, what)
        config = None
        if request.HasField("vectors_config"):
            config = GrpcToRest.convert_vectors_config(request.vectors_config)
        done = engine.create_collection(request.collection_name, vectors_config=config)
        return messages.CollectionOperationResponse(result=done)

    @method
    def Delete(self, engine, request, fault):
        done = engine.delete_collection(request.collection_name)
        return messages.CollectionOperationResponse(result=done)


class Points(points_service_pb2_grpc.PointsServicer):
    def __init__(self, server):
        self.server = server

    @method
    def Upsert(self, engine, request, fault):
        name = existing(engine, request.collection_name)
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        if "poison" in fault and any(fault["poison"] in p.payload.values() for p in points):
            raise ValueError("a point is poisoned")
        if "die_after" in fault:
            engine.upsert(name, points[: fault["die_after"]])
            os._exit(1)
        engine.upsert(name, points, wait=request.wait)
        return updated(request, fault)

    @method
    def Delete(self, engine, request, fault):
        name = existing(engine, request.collection_name)
        selector = GrpcToRest.convert_points_selector(request.points)
        engine.delete(name, selector, wait=request.wait)
        return updated(request, fault)

    @method
    def Get(self, engine, request, fault):
        found = engine.retrieve(
            existing(engine, request.collection_name),
            [GrpcToRest.convert_point_id(id) for id in request.ids],
            **shown(request),
        )
        return messages.GetResponse(result=[RestToGrpc.convert_record(record) for record in found])

    @method
    def Scroll(self, engine, request, fault):
        found, after = engine.scroll(
            existing(engine, request.collection_name),
            limit=request.limit,
            offset=GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None,
            **shown(request),
        )
        return messages.ScrollResponse(
            result=[RestToGrpc.convert_record(record) for record in found],
            next_page_offset=None if after is None else RestToGrpc.convert_extended_point_id(after),
        )

    @method
    def Count(self, engine, request, fault):
        counted = engine.count(existing(engine, request.collection_name), exact=request.exact)
        return messages.CountResponse(result=RestToGrpc.convert_count_result(counted))

    @method
    def Query(self, engine, request, fault):
        query = GrpcToRest.convert_query_points(request)
        found = engine.query_points(
            existing(engine, request.collection_name),
            query=query.query,
            using=query.using,
            query_filter=query.filter,
            limit=query.limit,
            with_payload=query.with_payload,
        )
        points = [RestToGrpc.convert_scored_point(point) for point in found.points]
        return messages.QueryResponse(result=points)


class Health(qdrant_pb2_grpc.QdrantServicer):
    def HealthCheck(self, request, context):
        return messages.HealthCheckReply(title="qdrant local engine", version="1.20.0")


class Server:
    def __init__(self, dir, api_key, tls):
        self.dir, self.api_key = dir, api_key
        self.faults, self.lock = Faults(dir / "faults.json"), threading.Lock()
        # Requests come on threads of their own, one at a time: the lock sees to it.
        self.engine = QdrantClient(path=str(dir / "data"), force_disable_check_same_thread=True)
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        workers = concurrent.futures.ThreadPoolExecutor(max_workers=8)
        self.grpc = grpc.server(workers, options=options)
        collections_service_pb2_grpc.add_CollectionsServicer_to_server(Collections(self), self.grpc)
        points_service_pb2_grpc.add_PointsServicer_to_server(Points(self), self.grpc)
        qdrant_pb2_grpc.add_QdrantServicer_to_server(Health(), self.grpc)
        # The port that it had before, if it was up before.
        kept = dir / "port"
        address = f"127.0.0.1:{kept.read_text() if kept.exists() else 0}"
        if tls:
            authority = trustme.CA()
            certificate = authority.issue_cert("localhost")
            authority.cert_pem.write_to_path(str(dir / "ca.pem"))
            chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
            key = certificate.private_key_pem.bytes()
            credentials = grpc.ssl_server_credentials([(key, chain)])
            port = self.grpc.add_secure_port(address, credentials)
        else:
            port = self.grpc.add_insecure_port(address)
        kept.write_text(str(port))
        self.url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"

    def note(self, method, request):
        """Requests that were done, for tests that count them: the method, and how many points."""
        count = len(request.points) if method == "Upsert" else ""
        with open(self.dir / "done", "a") as file:
            print(method, count, file=file)


def alive(pid):
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir", type=pathlib.Path)
    parser.add_argument("--api-key", help="who does not send it is not let in")
    parser.add_argument("--tls", action="store_true", help="with a certificate of DIR/ca.pem's")
    parser.add_argument("--while", dest="owner", type=int, help="stop when this process is gone")
    arguments = parser.parse_args()
    server = Server(arguments.dir, arguments.api_key, arguments.tls)
    server.grpc.start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # Complete when it is there: who starts us waits for it.
    (arguments.dir / "url.new").write_text(server.url)
    (arguments.dir / "url.new").rename(arguments.dir / "url")
    while not stop.wait(1) and (arguments.owner is None or alive(arguments.owner)):
        pass
    server.grpc.stop(grace=None).wait()
    server.engine.close()
    (arguments.dir / "url").unlink()


main()

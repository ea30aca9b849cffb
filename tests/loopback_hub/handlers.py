"""Connections: to the Hub itself, and to the other origin, where large files and GitHub's identities are."""

from __future__ import annotations

import io
import json
import re
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from loopback_hub import accounts, discussions, jobs, pushing, reading
from loopback_hub.calls import Call
from loopback_hub.faults import Fault
from loopback_hub.replies import Refused, Reply, Slice, ranged
from loopback_hub.storage import PIECE

if TYPE_CHECKING:
    from loopback_hub.server import LoopbackHub

ROUTES: list[tuple[str, str, Callable[[Call], Reply]]] = [
    *accounts.ROUTES,
    *pushing.ROUTES,
    *discussions.ROUTES,
    *jobs.ROUTES,
    *reading.ROUTES,
    *reading.LAST,
]


class Server(ThreadingHTTPServer):
    """One origin."""

    hub: LoopbackHub


class Handler(BaseHTTPRequestHandler):
    """One client's connection to either origin."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer one request, whatever its method."""
        self.left = int(self.headers.get("Content-Length") or 0)
        hub = self.server.hub
        fault = hub.note(f"{self.command} {self.path}")
        moment = fault.moment if fault else None
        try:
            if fault and moment == "before":
                fault.strike(hub)
                if fault.status is not None:
                    self.fail(fault)
                    return
            if fault and moment == "middle" and self.left:
                for piece in self.pieces(self.left // 2):
                    self.lost(piece)
                fault.strike(hub)
                self.cut()
                return
            try:
                reply = self.answer()
            except Refused as refused:
                reply = refused.reply
            if fault and moment != "before":
                fault.strike(hub)
                if moment == "after" and fault.status is not None:
                    self.fail(fault)
                    return
            self.send(reply, halved=moment == "middle")
        except ConnectionError:
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output clean."""

    def answer(self) -> Reply:
        """Give back the reply to the request."""
        raise NotImplementedError

    def lost(self, piece: bytes) -> None:
        """Take a piece of a body that will not arrive whole."""

    def pieces(self, count: int | None = None) -> Iterator[bytes]:
        """Read so much of the body, or what is left of it."""
        count = self.left if count is None else count
        while count:
            piece = self.rfile.read(min(count, PIECE))
            if not piece:
                raise ConnectionError("the client has gone")
            count, self.left = count - len(piece), self.left - len(piece)
            yield piece

    def fail(self, fault: Fault) -> None:
        """Answer as a fault says."""
        if fault.status:
            reply = Refused(fault.status, "planted fault", **fault.headers).reply
            self.send((fault.status, fault.page, {"Content-Type": "text/html"}) if fault.page else reply)
        else:
            self.cut()

    def cut(self) -> None:
        """Cut the connection."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def send(self, reply: Reply, *, halved: bool = False) -> None:
        """Send a reply, or only half of its body."""
        for _ in self.pieces():
            pass  # a body nobody asked for
        status, content, headers = reply
        data = content if isinstance(content, bytes | Slice) else json.dumps(content).encode()
        length = data.length if isinstance(data, Slice) else len(data)
        self.send_response(status)
        for name, text in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, text)
        self.end_headers()
        left = 0 if self.command == "HEAD" else length // 2 if halved else length
        with data.path.open("rb") if isinstance(data, Slice) else io.BytesIO(data) as body:
            body.seek(data.first if isinstance(data, Slice) else 0)
            while left and (piece := body.read(min(left, PIECE))):
                self.wfile.write(piece)
                left -= len(piece)
        if halved:
            self.cut()


class HubHandler(Handler):
    """A connection to the Hub itself."""

    def answer(self) -> Reply:
        """Give back the reply of the request's route, unless the token is nobody's."""
        hub = self.server.hub
        body = b"".join(self.pieces())
        token = hub.token(self.headers.get("Authorization", "").removeprefix("Bearer "))
        path, _, query = self.path.partition("?")
        for method, pattern, function in ROUTES:
            if method == self.command.replace("HEAD", "GET") and (match := re.fullmatch(pattern, path)):
                fields = {name: unquote(text or "") for name, text in match.groupdict().items()}
                return function(Call(hub, path, parse_qs(query), self.headers, body, token, fields))
        raise Refused(404, "Sorry, we can't find the page you are looking for.")


class StorageHandler(Handler):
    """A connection to the other origin, which must never see a token of the Hub."""

    def answer(self) -> Reply:
        """Take or give a large file, or the identity of a workflow."""
        hub = self.server.hub
        path, _, query = self.path.partition("?")
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if path == "/github/id-token" and self.command == "GET":
            return 200, {"value": hub.identify(bearer, parse_qs(query).get("audience", [""])[0])}, {}
        if bearer:
            raise Refused(400, "Only one auth mechanism allowed")
        oid, part = self.named()
        if self.command == "PUT" and part:
            return 200, b"", {"ETag": hub.storage.receive_part(oid, part, self.pieces())}
        if self.command == "PUT":
            hub.storage.receive(oid, self.pieces())
            return 200, b"", {}
        if oid not in hub.storage:
            raise Refused(404, "The specified key does not exist.")
        status, first, length, headers = ranged(self.headers.get("Range", ""), hub.storage.size(oid))
        return status, Slice(hub.storage.path(oid), first, length), {**headers, "ETag": f'"{oid}"'}

    def named(self) -> tuple[str, int]:
        """Give back the object asked for and the number of its part, or 0."""
        match = re.match(r"/objects/([0-9a-f]{64})(?:/parts/(\d+))?$", self.path.partition("?")[0])
        return (match[1], int(match[2] or 0)) if match else ("", 0)

    def lost(self, piece: bytes) -> None:
        """Count it."""
        for _ in self.server.hub.storage.counted(self.named()[0], [piece]):
            pass

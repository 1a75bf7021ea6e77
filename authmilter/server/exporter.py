"""The Prometheus endpoint, health, readiness and status: a process of its own, so that a scrape never waits for mail."""

import json
import os
import selectors
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from authmilter.metrics import Layout, Shared, registry
from authmilter.server.board import Board
from authmilter.server.status import Status

MAX_CLIENTS = 64  # served at once; more wait in the backlog


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, sock: socket.socket, shared: Shared, layout: Layout, board: Board | None) -> None:
        self.address_family = sock.family
        super().__init__(sock.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = sock
        self.shared = shared
        self.layout = layout
        self.registry: CollectorRegistry = registry(shared, layout)
        self.status = Status(shared, layout, board)
        self.places = threading.BoundedSemaphore(MAX_CLIENTS)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.places.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not worth a traceback."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 2.0  # a client that says nothing does not keep its place
    server_version = "authmilter"
    sys_version = ""

    def do_GET(self) -> None:
        """Serve /metrics, /healthz, /readyz and /status."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, generate_latest(self.server.registry), CONTENT_TYPE_LATEST)
        elif path == "/healthz":
            self._answer(200, b"ok\n")
        elif path == "/readyz":
            accepting = round(self.server.shared.sum(self.server.layout.cells["accepting", ()]))
            if accepting:
                self._answer(200, f"ok: {accepting} of {self.server.shared.slots - 1} workers accept\n".encode())
            else:
                self._answer(503, b"no worker accepts connections\n")
        elif path == "/status":
            self._answer(200, json.dumps(self.server.status.report()).encode() + b"\n", "application/json")
        else:
            self._answer(404, b"there are /metrics, /healthz, /readyz and /status\n")

    do_HEAD = do_GET  # noqa: N815  the base class looks for this name

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Scrapes are not logged."""


def main(
    sock: socket.socket, control: socket.socket, shared: Shared, layout: Layout, board: Board | None = None
) -> None:
    """Serve until the supervisor closes its end of `control`; `board` is where a worker writes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sock.setblocking(True)
    server = _Server(sock, shared, layout, board)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 3600}, daemon=True).start()
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            if selector.select(server.status.tick()) and not control.recv(65536):
                break
    os._exit(0)

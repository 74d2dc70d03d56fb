"""An HTTP server on the loopback that answers by a script, as no well-behaved service would."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

from training.address import Address, address_of


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


# `drop` ends the connection without an answer, `hang` gives none until the server ends, `drip`
# sends one byte after the other without an end.
Step = Reply | Literal["drop", "hang", "drip"]


@dataclass
class StubService:
    """What is answered, in turn, the last one again and again; `asked` is what came."""

    script: list[Step]
    asked: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    address: Address = field(default_factory=lambda: address_of("http://127.0.0.1:1"))


@contextmanager
def stub(*script: Step) -> Iterator[StubService]:
    """The server in a thread of its own, for as long as the block runs."""
    service = StubService(list(script))
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            service.asked.append((self.path, dict(self.headers), self.rfile.read(length)))
            step = service.script.pop(0) if len(service.script) > 1 else service.script[0]
            if isinstance(step, Reply):
                self._answer(step)
                return
            self.close_connection = True
            if step == "hang":
                ended.wait()
            elif step == "drip":
                self.send_response(200)
                self.end_headers()
                try:
                    while not ended.wait(0.02):
                        self.wfile.write(b" ")
                except OSError:
                    return  # the client has had enough

        do_POST = do_GET

        def _answer(self, reply: Reply) -> None:
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.address = address_of(f"http://127.0.0.1:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        ended.set()
        listener.shutdown()
        thread.join()
        listener.server_close()

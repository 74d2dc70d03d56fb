"""A file server on the loopback that can misbehave as servers do."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served and how; `asked` is the Range header of each request, in order."""

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)  # bytes after which a connection ends, in turn
    honours_range: bool = True
    tells_length: bool = True
    asked: list[str | None] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """The server in a thread of its own, for as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.headers["Range"])
            content = server.files.get(self.path.lstrip("/"))
            if content is None:
                self.send_error(404)
                return
            start = _start(self.headers["Range"]) if server.honours_range else 0
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            if server.tells_length:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + server.cuts.pop(0) if server.cuts else len(content)
            self.wfile.write(content[start:end])

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def _start(header: str | None) -> int:
    """First byte that a Range header asks for."""
    found = re.fullmatch(r"bytes=(\d+)-", header or "")
    return int(found[1]) if found else 0

"""An app behind a real server in a thread of the test's own process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from fastapi import FastAPI

from app.listener import bind
from app.protocol import LimitedProtocol

# Only a server that hangs takes so long, on however busy a machine.
TIMEOUT_S = 120


class _Announcing(uvicorn.Server):
    """A server that tells when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ended_startup = threading.Event()

    async def main_loop(self) -> None:
        self.ended_startup.set()
        await super().main_loop()


@contextmanager
def running(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the served app; on leaving, the server shuts down as it would on a signal."""
    sock = bind("127.0.0.1", 0)
    config = uvicorn.Config(app, http=LimitedProtocol, log_config=None, access_log=False)
    server = _Announcing(config)
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    try:
        assert server.ended_startup.wait(TIMEOUT_S)
        base_url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        with httpx.Client(base_url=base_url, timeout=TIMEOUT_S, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()

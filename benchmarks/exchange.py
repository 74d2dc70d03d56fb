"""Requests and their answers, one at a time."""

import socket
from typing import Self

import httptools


class _Answer:
    """What the parser finds."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


class Connection:
    """A connection that stays open between exchanges, and is made again when it does not.

    Args:
        port: of 127.0.0.1.
        timeout_s: of any wait for the server.
    """

    def __init__(self, port: int, timeout_s: float = 30.0) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a whole HTTP request.

        Raises:
            OSError: nothing listens there, or it hangs up or takes too long.
        """
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), self._timeout_s)
        try:
            self._socket.sendall(request)
            while not answer.complete:
                received = self._socket.recv(65536)
                if not received:
                    raise ConnectionResetError("hung up before the answer was complete")
                parser.feed_data(received)
        except BaseException:
            self.close()
            raise
        if not parser.should_keep_alive():
            self.close()
        return parser.get_status_code(), bytes(answer.body)

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def exchange(port: int, request: bytes, timeout_s: float = 30.0) -> tuple[int, bytes]:
    """One exchange on a connection of its own; see `Connection.exchange`."""
    with Connection(port, timeout_s) as connection:
        return connection.exchange(request)

"""One request and its answer, on a connection of its own."""

import socket

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


def exchange(port: int, request: bytes, timeout_s: float = 30.0) -> tuple[int, bytes]:
    """Status and body of the answer to a whole HTTP request.

    Raises:
        OSError: nothing listens there, or it hangs up or takes too long.
    """
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    with socket.create_connection(("127.0.0.1", port), timeout_s) as connection:
        connection.sendall(request)
        while not answer.complete:
            received = connection.recv(65536)
            if not received:
                raise ConnectionResetError("hung up before the answer was complete")
            parser.feed_data(received)
    return parser.get_status_code(), bytes(answer.body)

"""The HTTP protocol: uvicorn's, with a limit for what it would keep without one."""

import logging

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import HeadersTooLarge, MalformedRequest, ServiceError
from app.headers import with_security
from app.problems import MEDIA_TYPE

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024


class LimitedProtocol(HttpToolsProtocol):
    """Refuses a request line, headers or trailers that do not come to an end.

    The parser keeps them until they are complete, however long they are. Bodies are the app's to
    limit: they are handed on as they come.
    """

    _unparsed_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse; what neither completes a head or a message nor belongs to a body is counted."""
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._unparsed_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body has come."""
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete, trailers and all."""
        self._unparsed_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as every other failure is answered; `msg` is uvicorn's."""
        self.transport.write(_answer(MalformedRequest(msg)))
        self.transport.close()

    def _refuse(self) -> None:
        error = HeadersTooLarge(f"Request line and headers may have {MAX_HEAD_BYTES} bytes.")
        logger.warning("a request was refused: %s", error.title)
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(_answer(error))
        self.transport.close()


def _answer(error: ServiceError) -> bytes:
    """A problem document as the app would send it; the app never sees this request."""
    body = orjson.dumps(error.problem())
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    lines = b"".join(b"%s: %s\r\n" % header for header in with_security(headers))
    return f"HTTP/1.1 {error.status} {error.title}\r\n".encode() + lines + b"\r\n" + body

"""The HTTP protocol: uvicorn's, with limits for what it would keep or wait for without one."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app.connections import PACE_BYTES_PER_S, Connections, Stage
from app.errors import (
    HeadersTooLarge,
    MalformedRequest,
    RequestTimeout,
    ServiceError,
    TooManyConnections,
)
from app.headers import header
from app.problems import for_protocol, problem_bytes
from app.trace import Trace, request_id

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024

# One read of the transport brings up to 256 KiB, which can be thousands of pipelined requests.
_PARSED_AT_ONCE_BYTES = 64 * 1024

# For the request of a client that has only just connected, when it is to be its last.
_LAST_REQUEST_S = 1.0


class _Flow(FlowControl):
    """uvicorn's flow control that tells when reading goes on."""

    def __init__(self, transport: asyncio.Transport, on_resumed: Callable[[], None]) -> None:
        super().__init__(transport)
        self._on_resumed = on_resumed

    def resume_reading(self) -> None:
        """Read again, if reading was paused."""
        was_paused = self.read_paused
        super().resume_reading()
        if was_paused:
            self._on_resumed()


class LimitedProtocol(HttpToolsProtocol):
    """One connection: refuses a head that does not come to an end, and says how slow its client is.

    The parser keeps request line, headers and trailers until they are complete, however long they
    are. The size of bodies is the app's to limit: they are handed on as they come. Of what one read
    brought, nothing more is parsed while reading is paused.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: uvicorn's.
        _loop: None for the running one.
        connections: which this one belongs to; None gives it limits of its own.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        connections: Connections | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections or Connections()
        self._kept = b""  # read, and not parsed yet
        self._unparsed_bytes = 0
        self._stage = Stage.HEAD
        self._since = 0.0
        self._unsent_since: float | None = None
        self._unsent_bytes = 0
        self._turned_away = False
        self._dropping = False
        self._upgrading = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has connected: the time for a request's head begins."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self._parse_kept_soon)
        self._since = self.loop.time()
        if not self._all.admit(self):
            self._turn_away()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._all.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse it, unless reading is paused."""
        if self._turned_away:
            self.transport.close()
        self._kept += data
        self._parse_kept()

    def _parse_kept_soon(self) -> None:
        if self._kept:
            self.loop.call_soon(self._parse_kept)

    def _parse_kept(self) -> None:
        # What was refused must not reach the app.
        while self._kept and not self.flow.read_paused and not self.transport.is_closing():
            piece = self._kept[:_PARSED_AT_ONCE_BYTES]
            self._kept = self._kept[_PARSED_AT_ONCE_BYTES:]
            self._parse(piece)

    def _parse(self, data: bytes) -> None:
        """Parse; what neither completes a head or a message nor belongs to a body is counted."""
        if self._stage is Stage.IDLE:
            self._enter(Stage.HEAD)
        self._unparsed_bytes += len(data)
        self._feed(data)
        if self._unparsed_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(_heads_too_large())

    def _feed(self, data: bytes) -> None:
        """What uvicorn does, but a request for another protocol is answered in this one.

        Java's client and curl ask for HTTP/2 with every upload, and the parser leaves its body to
        whoever speaks that. So the rest is given to a new parser, behind the same head without the
        wish.
        """
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
                return
            except HttpParserUpgrade as upgrade:
                if not self._upgrading:
                    return
                self._upgrading = False
                head = b"%b %b HTTP/%b\r\n" % (
                    self.parser.get_method(),
                    self.url,
                    self.parser.get_http_version().encode(),
                )
                kept = [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
                self.parser = _parser(self)
                data = b"".join([head, *kept, b"\r\n", data[upgrade.args[0] :]])
            except HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return

    def on_message_begin(self) -> None:
        """A request begins, perhaps behind one that was answered without the app."""
        self._unset_keepalive_if_required()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if any(name == b"upgrade" for name, _ in self.headers) and self.parser.should_upgrade():
            self._upgrading = True
            return
        self._unparsed_bytes = 0
        self._enter(Stage.BODY)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_heads_too_large())
        if self.transport.is_closing():  # what one read brought is parsed to its end
            self._dropping = True
            return
        if self._refused_at_once():
            return
        super().on_headers_complete()
        if self._all.draining and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of the body has come."""
        self._unparsed_bytes = 0
        # What comes faster than the pace buys no silence after it.
        self._since = min(self.loop.time(), self._since + len(body) / PACE_BYTES_PER_S)
        if not self._dropping:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete, trailers and all."""
        if self._upgrading:
            return
        self._unparsed_bytes = 0
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():  # by its trailers
            self._refuse(_heads_too_large())
            return
        self._enter(Stage.ANSWER if self._answers else Stage.IDLE)
        if not self._dropping:
            super().on_message_complete()
            return
        self._dropping = False
        super().on_response_complete()  # the connection is idle again

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as every other failure is answered; `msg` says what."""
        self._refuse(MalformedRequest(msg))

    def on_response_complete(self) -> None:
        """The answer is handed to the transport; the body may still be coming."""
        if self._stage is Stage.ANSWER and not self._answers:
            self._enter(Stage.IDLE)
        super().on_response_complete()

    def shutdown(self) -> None:
        """Answer what has begun, and whatever comes at once on a connection that is new."""
        if self._stage is Stage.HEAD and not self._answers:
            # Until its head is complete the limit for slow heads bounds it too.
            if not self._unparsed_bytes:
                self.loop.call_later(_LAST_REQUEST_S, self._close_unused)
            return
        super().shutdown()

    def lag(self, now: float) -> tuple[Stage, float]:
        """What the connection waits for, and how many seconds its client is behind the pace."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent:
            self._unsent_since = None
        elif self._unsent_since is None:
            self._unsent_since, self._unsent_bytes = now, unsent
        if self._unsent_since is not None:
            self._unsent_bytes = max(self._unsent_bytes, unsent)
            return Stage.UNSENT, now - self._unsent_since - self._unsent_bytes / PACE_BYTES_PER_S
        if self.flow.read_paused:
            self._since = now  # it is us who keep the client waiting
            return Stage.ANSWER, 0.0
        return self._stage, now - self._since

    def expire(self, stage: Stage) -> None:
        """Close the connection of a client that took too long, with an answer where one fits."""
        if stage is Stage.UNSENT:
            self.transport.abort()  # closing would wait for the client to take the rest
        elif stage is Stage.BODY and self._answers and not self.cycle.response_started:
            # Known to the app, which is waiting for the body and is about to see it end.
            self.scope["state"]["timed_out"] = True
            self._answer(RequestTimeout("The body took too long to arrive."))
            self.transport.close()
        elif stage is Stage.HEAD and self._unparsed_bytes:
            self._refuse(RequestTimeout("The request's head took too long to arrive."))
        else:
            self.transport.close()

    @property
    def _head_bytes(self) -> int:
        """Of request line, headers and trailers so far: the least they can have come in."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    @property
    def _answers(self) -> bool:
        """Whether an answer is being made or sent."""
        return self.cycle is not None and not self.cycle.response_complete

    def _refused_at_once(self) -> bool:
        """Whether the request was answered here; its body is read and dropped.

        Left to the app are those after which the connection is not simply used again.
        """
        refuse = self._all.refuse
        if (
            refuse is None
            or self._answers
            or self._all.draining
            or self.expect_100_continue
            or self.parser.get_http_version() != "1.1"
            or not self.parser.should_keep_alive()
            or self.parser.should_upgrade()
            # The client does not fetch its answers: the app would stop reading its requests.
            or self.flow.write_paused
        ):
            return False
        port = None if self.server is None else self.server[1]
        answer = refuse(port, self.parser.get_method(), self.url, self.headers)
        if answer is None:
            return False
        self._dropping = True
        self.transport.write(answer)
        return True

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._since = self.loop.time()

    def _close_unused(self) -> None:
        if self._stage is Stage.HEAD and not self._unparsed_bytes and not self._answers:
            self.transport.close()

    def _turn_away(self) -> None:
        """Say that there is no room, and close.

        Only once the request has come: closing a socket with unread data would destroy the answer.
        """
        self._turned_away = True
        self._all.on_refused(TooManyConnections.code)
        self._answer(TooManyConnections(headers={"Retry-After": "1"}))
        self.loop.call_later(_LAST_REQUEST_S, self.transport.close)

    def _refuse(self, error: ServiceError) -> None:
        """Answer a request that the app never sees, unless an earlier one is still answered."""
        logger.debug("a request was refused: %s", error.title)
        self._all.on_refused(error.code)
        if not self._answers:
            self._answer(error)
        self.transport.close()

    def _answer(self, error: ServiceError) -> None:
        """The last answer of a connection, to a request that the app does not answer."""
        trace = self.scope.get("trace") if self.scope else None
        offered = header(self.headers or [], b"x-request-id")
        known = trace.request_id if isinstance(trace, Trace) else request_id(offered)
        headers = [(b"connection", b"close"), (b"x-request-id", known.encode())]
        path = self.scope.get("path", "") if self.scope else ""
        self.transport.write(problem_bytes(for_protocol(error, path), headers))


def _heads_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"Request line and headers may have {MAX_HEAD_BYTES} bytes.")


def _parser(protocol: LimitedProtocol) -> HttpRequestParser:
    """As uvicorn makes it."""
    parser = HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser

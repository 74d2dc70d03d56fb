"""A server that ends in order, and notices when it should be ended."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from app.acceptor import Acceptor
from app.line import Word
from app.listener import refuse_newcomers

logger = logging.getLogger(__name__)

_BEAT_S = 1.0


class GracefulServer(uvicorn.Server):
    """A server that fails readiness first, then closes its listeners, then drains.

    The first SIGTERM or SIGINT begins that; a second one ends the process at once. An illness
    begins it as well, where no supervisor would see to it.

    Args:
        config: uvicorn's.
        fail_readiness: called with the first signal.
        delay_s: between failing readiness and closing the listeners, so that whoever balances
            load has seen it; an impatient Ctrl-C skips it.
        illness: why only a new process helps, None while all is well; told once.
        report: called with how the process is doing, about once a second.
        excess: how many connections more than another worker this one has; None: it is alone.
        others_go_on: whether newcomers are welcome to others on the same sockets when this ends.

    Attributes:
        unanswered: how many requests were left at the end.
        unwell: whether it ended of an illness, and not because it was told to.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        fail_readiness: Callable[[], None],
        delay_s: float,
        illness: Callable[[], str | None] = lambda: None,
        report: Callable[[Word, str], None] = lambda word, reason: None,
        excess: Callable[[], int] | None = None,
        others_go_on: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(config)
        self._fail_readiness = fail_readiness
        self._delay_s = delay_s
        self._illness = illness
        self._report = report
        self._excess = excess
        self._others_go_on = others_go_on
        self._told: str | None = None
        self._beat_at = 0.0
        self._listening: list[socket.socket] = []
        self._close_at: float | None = None
        self._refusing = False
        self._asked = False
        self.unanswered = 0
        self.unwell = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so: whoever reads the line can connect."""
        self._listening = sockets or []
        await super().startup([])
        self._accept(self._listening)
        for sock in self._listening:
            logger.info("serving on %s", url(sock))
        self._report(Word.READY, "")

    def _accept(self, sockets: Sequence[socket.socket]) -> None:
        """Listen, alone or together with other workers."""

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        for sock in sockets:
            acceptor = Acceptor(sock, protocol, self._excess)
            acceptor.start(self.config.backlog)
            self.servers.append(acceptor)  # type: ignore[arg-type]  # it is closed like a server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, and go on telling how the process is doing meanwhile."""
        beating = asyncio.create_task(self._keep_beating())
        try:
            await super().shutdown(sockets)
        finally:
            beating.cancel()

    async def _wait_tasks_to_complete(self) -> None:
        """Note what was not waited for, before it is cancelled and ends as if it were answered."""
        try:
            await super()._wait_tasks_to_complete()
        finally:
            self.unanswered = len(self.server_state.tasks)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down; uvicorn's own handler would close the listeners at once.

        The signal is not raised again at the end: a shutdown that was asked for is a success.
        """
        if self._asked:
            self.force_exit = self.should_exit = True
            return
        self._asked = True
        self._begin_to_end(self._delay_s if sig == signal.SIGTERM else 0.0)

    def _begin_to_end(self, delay_s: float) -> None:
        self._fail_readiness()
        close_at = time.monotonic() + delay_s
        self._close_at = close_at if self._close_at is None else min(self._close_at, close_at)

    async def on_tick(self, counter: int) -> bool:
        """Look after itself; close the listeners when the delay is over.

        Whoever was connected by the system but not by us yet would be lost with a listener, so that
        it is closed one turn later than it stops taking newcomers.
        """
        self._look_after()
        if self._refusing:
            self.should_exit = True
        elif self._close_at is not None and time.monotonic() >= self._close_at:
            self._refusing = True
            if not self._others_go_on():
                for sock in self._listening:
                    refuse_newcomers(sock)
        return await super().on_tick(counter)

    def _look_after(self) -> None:
        illness = self._illness()
        if illness != self._told:
            self._told = illness
            if illness:
                logger.critical("this process must be restarted: %s", illness)
                self._report(Word.UNWELL, illness)
                if self._excess is None and self._close_at is None:
                    logger.critical("it ends, to be started again")
                    self.unwell = True
                    self._begin_to_end(self._delay_s)
            else:
                logger.warning("inference works again")
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + _BEAT_S
            self._report(Word.BEAT, "")

    async def _keep_beating(self) -> None:
        while True:
            self._look_after()
            await asyncio.sleep(_BEAT_S)


def url(sock: socket.socket) -> str:
    """Where a listening socket is reached."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

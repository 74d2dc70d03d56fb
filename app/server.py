"""The server process: `limbeck-serve`, or `python -m app`."""

import argparse
import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import FrameType

import uvicorn

from app.bundle import BundleError
from app.logs import configure_logs
from app.main import create_app
from app.protocol import LimitedProtocol
from app.sessions import DeviceError
from app.settings import PREFIX, Settings, SettingsError, load_settings

logger = logging.getLogger(__name__)

STARTUP_FAILED = 1
CUT_SHORT = 3


class GracefulServer(uvicorn.Server):
    """A server that fails readiness first, then closes its listeners, then drains.

    The first SIGTERM or SIGINT begins that; a second one ends the process at once.

    Args:
        config: uvicorn's.
        fail_readiness: called with the first signal.
        delay_s: between failing readiness and closing the listeners, so that whoever balances
            load has seen it; an impatient Ctrl-C skips it.

    Attributes:
        unanswered: how many requests were left at the end.
    """

    def __init__(
        self, config: uvicorn.Config, fail_readiness: Callable[[], None], delay_s: float
    ) -> None:
        super().__init__(config)
        self._fail_readiness = fail_readiness
        self._delay_s = delay_s
        self._close_at: float | None = None
        self.unanswered = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so: whoever reads the line can connect."""
        await super().startup(sockets)
        for sock in sockets or ():
            host, port = sock.getsockname()[:2]
            logger.info("serving on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, and note what a second signal did not wait for."""
        await super().shutdown(sockets)
        self.unanswered = len(self.server_state.tasks)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down; uvicorn's own handler would close the listeners at once.

        The signal is not raised again at the end: a shutdown that was asked for is a success.
        """
        if self._close_at is not None:
            self.force_exit = self.should_exit = True
            return
        self._fail_readiness()
        delay_s = self._delay_s if sig == signal.SIGTERM else 0.0
        self._close_at = time.monotonic() + delay_s

    async def on_tick(self, counter: int) -> bool:
        """Close the listeners when the delay is over."""
        if self._close_at is not None and time.monotonic() >= self._close_at:
            self.should_exit = True
        return await super().on_tick(counter)


def serve(settings: Settings, sockets: list[socket.socket]) -> int:
    """Load the bundles and serve them until a signal; the exit status.

    Args:
        settings: the admin port, if any, as it was bound.
        sockets: the main one, and the admin port's if there is one.

    Raises:
        BundleError: a bundle cannot be loaded.
        DeviceError: the device cannot be used.
    """
    app = create_app(settings)
    service = app.state.wiring.service

    def fail_readiness() -> None:
        service.ready = False

    config = uvicorn.Config(
        app,
        http=LimitedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )
    server = GracefulServer(config, fail_readiness, settings.shutdown_delay_s)
    server.run(sockets)
    if service.busy or server.unanswered:
        # onnxruntime aborts the process when it is torn down around an inference that still runs.
        logger.error("ended before every request was answered")
        logging.shutdown()
        os._exit(CUT_SHORT)
    return 0


def bind(host: str, port: int) -> socket.socket:
    """A socket that holds the address, not listening yet."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        error.filename = f"{host}:{port}"
        raise
    return sock


def run(arguments: Sequence[str]) -> int:
    """The command; the exit status."""
    argparse.ArgumentParser(
        "limbeck-serve", description=__doc__, epilog=_settings_help()
    ).parse_args(arguments)
    try:
        settings = load_settings()
        configure_logs(settings.log_level)
        with ExitStack() as stack:
            sockets = [stack.enter_context(bind(settings.host, settings.port))]
            if settings.admin_port is not None:
                admin = stack.enter_context(bind(settings.admin_host, settings.admin_port))
                sockets.append(admin)
                # 0 took a free port: the app must know which.
                settings = settings.model_copy(update={"admin_port": admin.getsockname()[1]})
            return serve(settings, sockets)
    except (SettingsError, BundleError, DeviceError) as error:
        reason = str(error)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        reason = f"{error.filename or address}: {error.strerror}"
    print(f"limbeck-serve cannot start: {reason}", file=sys.stderr)
    return STARTUP_FAILED


def _settings_help() -> str:
    names = ", ".join(PREFIX + name.upper() for name in Settings.model_fields)
    return f"Settings come from the environment: {names}."


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))

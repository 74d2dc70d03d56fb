"""The server's command: `limbeck-serve`, or `python -m app`.

It serves itself, or starts several workers and only watches over them. What serves is therefore
imported late: a supervisor would keep the memory of it for nothing.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from app.ledger import Ledger
from app.listener import bound
from app.logs import SteadyHandler, abandon_unwritten, configure_logs, secure_standard_streams
from app.settings import PREFIX, Settings, SettingsError, load_settings
from app.statuses import STARTUP_FAILED
from app.supervisor import Supervisor, WorkersFailed


def run(arguments: Sequence[str]) -> int:
    """The command; the exit status."""
    argparse.ArgumentParser(
        "limbeck-serve", description=__doc__, epilog=_settings_help()
    ).parse_args(arguments)
    try:
        settings = load_settings()
    except SettingsError as error:
        return _refuse(str(error))
    log = configure_logs(settings.log_level)
    try:
        if settings.processes == 1:
            return _serve_alone(settings, log)
        return _supervise(settings)
    except OSError as error:
        address = f"{settings.host}:{settings.port}"
        return _refuse(f"{error.filename or address}: {error.strerror}")


def _serve_alone(settings: Settings, log: SteadyHandler) -> int:
    from app.bundle import BundleError
    from app.sessions import DeviceError
    from app.worker import serve

    try:
        with bound(settings) as sockets:
            return serve(settings, sockets, log)
    except (BundleError, DeviceError) as error:
        return _refuse(str(error))


def _supervise(settings: Settings) -> int:
    with bound(settings) as sockets, ExitStack() as until_the_end:
        try:
            ledger = until_the_end.enter_context(Ledger())
        except OSError as error:
            return _refuse(
                f"several workers need a temporary folder to write to (TMPDIR): {error.strerror}"
            )

        async def supervise() -> int:
            return await Supervisor(settings, sockets, ledger).run()

        try:
            return asyncio.run(supervise())
        except WorkersFailed as error:
            return _refuse(str(error))


def _refuse(reason: str) -> int:
    print(f"limbeck-serve cannot start: {reason}", file=sys.stderr)
    return STARTUP_FAILED


def _settings_help() -> str:
    names = ", ".join(PREFIX + name.upper() for name in Settings.model_fields)
    return f"Settings come from the environment: {names}."


def _heed_signals() -> None:
    """End on SIGTERM and SIGINT from the first moment on, and on SIGHUP as on SIGTERM.

    What is loading is left as it is; whoever serves puts handlers of its own in the place of these.
    The first process of a container is sent no signal that it has not asked for.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not by an exception: one that is raised in the midst of an import may be swallowed.
        signal.signal(number, lambda number, frame: os._exit(0))
    if not hasattr(signal, "SIGHUP"):
        return  # Windows
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # else it is to outlive its terminal
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))


def main() -> None:
    """The console script."""
    _heed_signals()
    secure_standard_streams()
    status = run(sys.argv[1:])
    abandon_unwritten()
    sys.exit(status)

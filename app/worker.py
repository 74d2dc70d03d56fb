"""One process that serves: alone, or as one of several under a supervisor.

`python -m app.worker PLACE VERSIONS LINE SOCKET...` is what the supervisor starts: its number among
the workers, what it is to serve, and the numbers of open files.
"""

import json
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn

from app import metrics
from app.acceptor import Shares
from app.admission import Admission
from app.bundle import BundleError
from app.connections import ConnectionLimits, Connections
from app.graceful import GracefulServer
from app.ledger import SHARES_FILE, VARIABLE
from app.line import Word, WorkerEnd
from app.logs import SteadyHandler, abandon_unwritten, configure_logs, secure_standard_streams
from app.main import create_app
from app.memory import settle_objects
from app.protocol import LimitedProtocol
from app.sessions import DeviceError
from app.settings import Settings, SettingsError, load_settings
from app.statuses import CUT_SHORT, STARTUP_FAILED, UNWELL

logger = logging.getLogger(__name__)

# Of the files a process may open, those that are no connections.
_OTHER_FILES = 64


@dataclass(frozen=True, slots=True)
class Company:
    """What a worker has to do with the others.

    Attributes:
        report: tells the supervisor how it is doing.
        count: tells the others how many connections it has.
        excess: how many more than another worker it has; None if it is alone.
        goes_on: whether the others take newcomers when this one does not any more.
        versions: `name/version` of what all of them serve; None: whatever there is.
    """

    report: Callable[[Word, str], None] = lambda word, reason: None
    count: Callable[[int], None] = lambda connections: None
    excess: Callable[[], int] | None = None
    goes_on: Callable[[], bool] = lambda: False
    versions: Container[str] | None = None


def serve(
    settings: Settings,
    sockets: Sequence[socket.socket],
    log: SteadyHandler,
    company: Company | None = None,
) -> int:
    """Load the bundles and serve them until a signal; the exit status.

    Args:
        settings: the operator's.
        sockets: where to listen: the main one, and the admin port's if there is one.
        log: where the process logs to.
        company: the other workers; None if it is alone.

    Raises:
        BundleError: a bundle cannot be loaded.
        DeviceError: the device cannot be used.
    """
    company = company or Company()
    if settings.admin_port is not None:
        # 0 took a free port: the app must know which.
        settings = settings.model_copy(update={"admin_port": sockets[1].getsockname()[1]})
    app = create_app(settings, versions=company.versions)
    service = app.state.wiring.service
    settle_objects()
    log.on_lost = service.metrics.lost_log_lines.inc
    _allow_files(settings.max_connections + _OTHER_FILES)
    connections = Connections(
        ConnectionLimits(
            settings.max_connections,
            settings.keep_alive_s,
            settings.header_timeout_s,
            settings.body_timeout_s,
            settings.write_timeout_s,
        ),
        on_refused=lambda code: service.metrics.rejected.labels(code).inc(),
        on_count=company.count,
        refuse=None if _wants_the_app(settings) else Admission(service, settings.admin_port).refuse,
    )

    company.count(0)

    def fail_readiness() -> None:
        service.ready = False
        connections.draining = True

    config = uvicorn.Config(
        app,
        http=partial(LimitedProtocol, connections=connections),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # The sweep would be a second late; the answer to whoever is on time is the same.
        timeout_keep_alive=math.ceil(settings.keep_alive_s),
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )
    server = GracefulServer(
        config,
        fail_readiness,
        settings.shutdown_delay_s,
        lambda: service.illness,
        company.report,
        company.excess,
        company.goes_on,
    )
    server.run(list(sockets))
    if service.busy or server.unanswered:
        # onnxruntime aborts the process when it is torn down around an inference that still runs.
        logger.error("ended before every request was answered")
        logging.shutdown()
        os._exit(CUT_SHORT)
    return UNWELL if server.unwell else 0


def _wants_the_app(settings: Settings) -> bool:
    """Whether even a refusal has to go through the app's layers.

    A page of another origin may read only what CORS allows it. A key is asked for, and a request
    counted, before anything is told.
    """
    return bool(settings.cors_origins or settings.known_keys() or settings.rate_limit)


def _allow_files(wanted: int) -> None:
    """Let the process open so many files, as far as the system lets it."""
    try:
        import resource  # not on every system
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning(
            "the system lets the process open %d files; %d would be wanted for "
            "LIMBECK_MAX_CONNECTIONS",
            allowed,
            wanted,
        )


def run(arguments: Sequence[str]) -> int:
    """A worker of a supervisor's; the exit status."""
    versions = json.loads(arguments[1])
    place, line, *sockets = map(int, (arguments[0], *arguments[2:]))
    end = WorkerEnd(socket.socket(fileno=line))
    threading.Thread(target=_end_with, args=(end,), name="line", daemon=True).start()
    metrics.use_place(place)
    shares = Shares(Path(os.environ[VARIABLE]) / SHARES_FILE)
    try:
        settings = load_settings()
        company = Company(
            end.say,
            lambda connections: shares.tell(place, connections),
            # Twice the places: a worker may be retiring while its successor serves.
            lambda: shares.excess(place, 2 * settings.processes),
            lambda: end.closed,
            versions,
        )
        log = configure_logs(settings.log_level)
        return serve(settings, [socket.socket(fileno=number) for number in sockets], log, company)
    except (SettingsError, BundleError, DeviceError) as error:
        end.say(Word.FAILED, str(error))
    except OSError as error:
        end.say(Word.FAILED, f"{error.filename or 'the system'}: {error.strerror}")
    return STARTUP_FAILED


def _end_with(end: WorkerEnd) -> None:
    """The supervisor replaces this worker, or is gone and nobody would ever end it."""
    end.wait_for_end()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    secure_standard_streams()
    status = run(sys.argv[1:])
    abandon_unwritten()
    sys.exit(status)

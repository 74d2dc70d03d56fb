"""The servers of the table: how each is started and where it takes uploads."""

import secrets
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers.model import BUNDLE_VARIABLE
from benchmarks.workloads import Body

LIMIT = "limit"
FLOOR = "floor"
LIMBECK = "limbeck"


@dataclass(frozen=True, slots=True)
class Server:
    """One server.

    Attributes:
        name: as on the command line.
        title: as in the table.
        arguments: of Python; `{port}` stands for the port.
        paths: where it takes uploads, by body.
        package: the distribution it needs; None for what the service itself needs.
    """

    name: str
    title: str
    arguments: tuple[str, ...]
    paths: Mapping[Body, str]
    package: str | None = None

    def command(self, python: str, port: int) -> list[str]:
        """What starts it."""
        return [python, *(argument.format(port=port) for argument in self.arguments)]

    @property
    def computes(self) -> bool:
        """Whether it runs the models at all."""
        return self.name != FLOOR


_FORM: Mapping[Body, str] = {"multipart": "/predict"}

SERVERS = (
    Server(
        FLOOR,
        "HTTP floor",
        ("-m", "benchmarks.servers.floor", "--port", "{port}"),
        {"raw": "/raw", "multipart": "/multipart"},
    ),
    Server(
        LIMBECK,
        "**Limbeck**",
        ("-m", "app"),
        {"raw": "/classify?purify=true", "multipart": "/classify?purify=true"},
    ),
    Server(
        "plain",
        "plain FastAPI",
        ("-m", "benchmarks.servers.plain", "--port", "{port}"),
        _FORM,
    ),
    Server(
        "litserve",
        "LitServe",
        ("-m", "benchmarks.servers.lit", "--port", "{port}"),
        _FORM,
        "litserve",
    ),
    Server(
        "bentoml",
        "BentoML",
        (
            *("-m", "bentoml", "serve", "benchmarks.servers.bento:Classify"),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        _FORM,
        "bentoml",
    ),
    Server(
        "ray",
        "Ray Serve",
        ("-m", "benchmarks.servers.ray_serve", "--port", "{port}"),
        {"raw": "/predict"},
        "ray",
    ),
)


def environment(server: Server, port: int, bundle: Path, models_dir: Path) -> dict[str, str]:
    """What a server finds in its environment.

    Args:
        server: which one.
        port: to listen on.
        bundle: the folder of the bundle to serve.
        models_dir: a folder of bundles that holds this one only.
    """
    if server.name == LIMBECK:
        # Its own defaults, but for the device: where the table is about one core, a GPU is not.
        return {
            "LIMBECK_MODELS_DIR": str(models_dir),
            "LIMBECK_PORT": str(port),
            "LIMBECK_DEVICE": "cpu",
            "LIMBECK_SHUTDOWN_DELAY_S": "0",
        }
    return {
        BUNDLE_VARIABLE: str(bundle.resolve()),
        # Nothing is reported to anyone.
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Nothing is left in the home folder.
        "BENTOML_HOME": str(models_dir / ".bentoml"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
    }


def installed(python: str, package: str) -> str | None:
    """The version of a distribution that an interpreter finds; None if it is not there."""
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    found = subprocess.run([python, "-c", code, package], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


def interpreter(server: Server, peers: str) -> str:
    """The Python that runs a server: the peers may have one of their own."""
    return peers if server.package else sys.executable

"""What the figures were measured on."""

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rounds import Plan
from benchmarks.rows import installed

# Where the two interpreters differ in these, rows differ for reasons that are not the server's.
_SHARED = ("onnxruntime-gpu", "onnxruntime", "numpy", "pillow", "fastapi", "uvicorn", "uvloop")


def machine_lines(plan: Plan, load_before: float) -> Iterator[str]:
    """Machine, versions, and warnings where the figures cannot be trusted."""
    cores = os.cpu_count()
    yield f"{_processor()}, {cores} cores; Python {platform.python_version()}; " + ", ".join(
        f"{package} {version}"
        for package in _SHARED
        if (version := installed(sys.executable, package))
    )
    peers = [server.package for server in plan.servers if server.package]
    versions = [f"{peer} {installed(plan.peers, peer) or 'not installed'}" for peer in peers]
    yield f"Others: {', '.join(versions) or 'none'}."
    yield (
        f"{plan.rounds} rounds, {plan.window.seconds:g} s a measurement: the median, and in "
        "brackets the lowest and highest round. c = connections."
    )
    if plan.peers != sys.executable:
        for package in _SHARED:
            ours, theirs = installed(sys.executable, package), installed(plan.peers, package)
            if ours != theirs:
                yield f"**Not comparable:** {package} is {ours} here and {theirs} for the others."
    yield from busy_lines(load_before)


def busy_lines(load_before: float) -> Iterator[str]:
    """A warning if others used the machine before the first measurement."""
    if load_before > 0.5:
        yield f"**Not to be used:** the machine was busy (load average {load_before:.1f})."


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()

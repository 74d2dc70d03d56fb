"""Where a bundle comes from: commit, versions and machine."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from app.bundle import Provenance
from training.optimization import precision_name
from training.recipes import settings_of
from training.run import Run

_FRAMEWORKS = ("torch", "onnx", "onnxscript", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow")


def provenance_of(run: Run, command: str) -> Provenance:
    """What it takes to train the networks of a run again.

    Args:
        run: with all its stages done.
        command: that started it.
    """
    return Provenance(
        command=command,
        recipe=run.recipe.name,
        settings=settings_of(run.recipe),
        seed=run.recipe.seed,
        git_commit=git_commit(),
        data_name=run.dataset.name,
        data_sha256=run.dataset.sha256,
        versions={"python": platform.python_version(), **_installed()},
        machine=machine(run.device, run.processes.count, run.precision),
        stage_seconds={
            name: round(sum(record["seconds"] for record in history), 1)
            for name, history in run.histories.items()
        },
        classifier=None if run.brought is None else dict(run.brought.origin),
    )


def machine(
    device: torch.device, processes: int = 1, precision: torch.dtype = torch.float32
) -> str:
    """The hardware, in words, and how much of it was used, in which precision if not float32."""
    several = f"{processes} processes" if processes > 1 else ""
    reduced = "" if precision == torch.float32 else precision_name(precision)
    if device.type == "cuda":
        return ", ".join(filter(None, (torch.cuda.get_device_name(device), several, reduced)))
    threads = torch.get_num_threads()
    used = f"{threads} thread{'s' if threads > 1 else ''}"
    if several:
        used = f"{several} of {used}"
    cores = f"{len(os.sched_getaffinity(0))} CPU cores"
    return ", ".join(filter(None, (cores, processor(), used, reduced)))


def git_commit() -> str | None:
    """The commit of this source tree, `+` behind it if files differ; None outside of git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _installed() -> dict[str, str]:
    """Versions of the frameworks that are there."""
    found = {}
    for name in _FRAMEWORKS:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return found


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import (
    ServerFailed,
    ServerProcess,
    free_port,
    pinned,
    process_tree,
)
from benchmarks.rows import SERVERS, Server, installed
from benchmarks.workloads import http_request

FLOOR = next(server for server in SERVERS if server.name == "floor")
CORE = max(os.sched_getaffinity(0))

# Leaves a process behind that outlives it, in a session of its own.
ABANDONS_A_CHILD = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"],
                         start_new_session=True)
print(child.pid, flush=True)
sys.exit(3)
"""


def start(server: Server, port: int, folder: Path) -> ServerProcess:
    command = server.command(sys.executable, port)
    return ServerProcess(command, {}, CORE, folder / "log")


def test_a_server_is_pinned_waited_for_weighed_and_stopped(tmp_path: Path) -> None:
    port = free_port()
    mine = os.sched_getaffinity(0)
    before = set(process_tree(os.getpid()))
    with start(FLOOR, port, tmp_path) as process:
        request = http_request("/raw", b"image", "image/png", "raw")
        ready_s = process.wait_until_ready(port, request)
        (server,) = set(process_tree(os.getpid())) - before
        assert os.sched_getaffinity(server) == {CORE}
        assert 0 < ready_s < 120
        assert 10 * 2**20 < process.memory_bytes() < 2**30
    assert os.sched_getaffinity(0) == mine
    assert set(process_tree(os.getpid())) <= before
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def test_a_server_that_ends_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(process_tree(os.getpid()))
    server = ServerProcess([sys.executable, "-c", ABANDONS_A_CHILD], {}, CORE, tmp_path / "log")
    with server, pytest.raises(ServerFailed, match=r"ended with 3: \d+"):
        server.wait_until_ready(free_port(), b"")
    child = int((tmp_path / "log").read_text())
    assert child not in before
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_memory_is_of_the_children_too(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as parent:
        while len(process_tree(parent.pid)) < 2:
            assert parent.poll() is None
        assert process_tree(parent.pid)[0] == parent.pid
        assert parent.stdin is not None
        parent.stdin.write(b"\n")
        parent.stdin.close()
    assert parent.returncode == 0


def test_pinning_ends() -> None:
    before = os.sched_getaffinity(0)
    with pinned(CORE):
        assert os.sched_getaffinity(0) == {CORE}
    assert os.sched_getaffinity(0) == before


def test_what_is_installed_is_asked_of_the_interpreter() -> None:
    assert installed(sys.executable, "numpy")
    assert installed(sys.executable, "no-such-distribution") is None

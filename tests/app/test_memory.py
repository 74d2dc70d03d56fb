"""What is freed goes back; on other C libraries than glibc nothing is promised."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Many small pieces, and after each a lasting one that keeps the allocator's top from falling.
FREE_AND_TRIM = """
from pathlib import Path
from app.memory import limit_slack, trim_memory

def resident_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)

limit_slack()
pieces = [bytearray(60_000) for _ in range(1000)]
lasting = bytearray(1_000)
full = resident_mib()
del pieces
held = resident_mib()
trim_memory()
print(full - resident_mib())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux' /proc")
def test_freed_memory_goes_back_to_the_system() -> None:
    freed_mib = subprocess.run(
        [sys.executable, "-c", FREE_AND_TRIM], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert float(freed_mib) > 50

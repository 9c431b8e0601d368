from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numba

import bandits.kernels
from bandits.kernels import direct, kernel

SCRIPT = """
import numba
from bandits.kernels import kernel

@kernel(numba.float64(numba.float64))
def double(x):
    return 2 * x

print(double(21.0))
"""


def test_a_kernel_is_compiled_where_no_cache_can_be_written(tmp_path: Path) -> None:
    """A file in the place of each cache folder stops root too, as a read-only disk would."""
    (tmp_path / "__pycache__").touch()
    (tmp_path / "script.py").write_text(SCRIPT)
    root = Path(bandits.kernels.__file__).parents[1]
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONPATH": str(root), "NUMBA_CACHE_DIR": ""}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "42.0\n"


def test_a_kernel_is_called_directly_and_a_plain_function_as_it_stands() -> None:
    @kernel(numba.float64(numba.float64))
    def double(x: float) -> float:
        return 2 * x

    assert direct(double) is not double
    assert direct(double)(21.0) == double(21.0) == 42.0
    assert direct(math.sqrt) is math.sqrt

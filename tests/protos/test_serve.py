"""`serve_alone.py`, in a process of its own.

It stops servers by signals to its own process, and h2corn ends none of its servers once others of the same process have
run on other event loops.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.process import ROOT

ALONE = Path(__file__).parent / "serve_alone.py"


def test_ports_serve_tls_renew_it_and_drain():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ALONE)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr

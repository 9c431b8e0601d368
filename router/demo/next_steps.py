"""What one may want to do after the replay, as commands to copy."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from router.demo.routes import CONTEXTUAL, PLAIN, POLICY_FILE

CLIENTS, OPERATORS = "127.0.0.1:8080", "127.0.0.1:8082"
"""Where the demo serves when it is told to, as a configuration says it by default."""

DASHBOARD = f"http://{OPERATORS}/dashboard"


def commands(folder: Path, decision: str, server: str) -> list[str]:
    """Questions to a server of what was learnt in `folder`; `decision` is one that it took."""
    croupier = os.path.relpath(Path(sys.executable).with_name("croupier"))
    policy = shlex.quote(str(folder / POLICY_FILE))
    asked = [f"report {CONTEXTUAL}", f"evaluate {PLAIN} --policy {policy}"]
    if decision:
        asked.insert(1, f"explain {decision}")
    return [f"{shlex.quote(croupier)} {each} --server {server}" for each in asked]

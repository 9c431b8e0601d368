"""Runs every benchmark, one after the other."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = {
    "overhead": "What does a request cost?",
    "instructions": "Where does a request's time go?",
    "runtime": "What does serving a model cost beside MLServer and Triton?",
    "gpu": "What does a GPU answer beside the bare model in a loop?",
    "overload": "What happens at three times the peak?",
    "soak": "Does it grow?",
    "conformance": "Does it answer as MLServer does?",
    "decisions": "What does a decision cost?",
    "regret": "How much is lost while a policy learns?",
    "contextual": "Which policy learns most from a context?",
    "ope": "Does off-policy evaluation tell the truth?",
    "peeking": "Who is fooled by peeking?",
    "hop": "What does a hop to another server cost, beside Envoy?",
    "canary": "Is a bad canary rolled back, a good one promoted, an equal one left alone?",
}


def main() -> int:
    """Runs them all with the arguments given; returns 1 when one failed."""
    failed = []
    for name, question in BENCHMARKS.items():
        print(f"\n== {question} (python -m benchmarks.{name})", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

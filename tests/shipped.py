"""`python -m tests.shipped MODULE ...` runs a module as its users have it: without what only our tests bring.

A server that came to need that would otherwise not be noticed. It also starts a third of a second sooner: Numba imports
SciPy where there is one, and httpx Rich.
"""

from __future__ import annotations

import runpy
import sys

ABSENT = ("scipy", "rich")

if __name__ == "__main__":
    sys.modules |= dict.fromkeys(ABSENT)  # type: ignore[arg-type]  # None is how Python says that there is none
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

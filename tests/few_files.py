"""`python -m tests.few_files NUMBER MODULE ...` runs a module where no more than so many files may be open."""

from __future__ import annotations

import resource
import runpy
import sys

if __name__ == "__main__":
    most = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (most // 2, most))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)

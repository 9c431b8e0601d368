"""Requests to servers without TLS, each over a connection of its own.

Before every one httpx itself would read all certificates that the machine trusts, for 25 ms.
"""

from __future__ import annotations

from functools import partial

import httpx

get = partial(httpx.get, verify=False, trust_env=False)
post = partial(httpx.post, verify=False, trust_env=False)

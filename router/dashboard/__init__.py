"""The dashboard: one page on the admin port, for the same answers that the REST API gives.

`page/` is served as it lies there, without a build step. The page itself holds no data and is open to everybody; what
it shows it asks of the API, with the key of whoever looks.
"""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from protos.errors import NotFound

_FILES = Path(__file__).parent / "page"

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

_HEADERS = {
    # Only what this server serves itself, nothing inline, and no markup made of strings: an arm's name stays a text.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # or an upgraded server would meet the script of the old one
}


def dashboard_routes() -> list[Route]:
    """The page at /dashboard, the files that it is made of, and the way to it from /."""
    files = {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in sorted(_FILES.iterdir())}

    def sent(name: str) -> Response:
        if name not in files:
            raise NotFound(f"the dashboard has no file {name[:100]!r}")
        body, kind = files[name]
        return Response(body, media_type=kind, headers=_HEADERS)

    async def root(_request: Request) -> Response:
        """The way to the dashboard."""
        return RedirectResponse("dashboard")

    async def page(request: Request) -> Response:
        """The dashboard."""
        if request.scope.get("raw_path", b"").endswith(b"/"):  # from there, its relative addresses would lead astray
            return RedirectResponse("../dashboard")
        return sent("index.html")

    async def file(request: Request) -> Response:
        """A file that the dashboard is made of."""
        return sent(request.path_params["file"])

    return [Route("/", root), Route("/dashboard", page), Route("/dashboard/{file}", file)]

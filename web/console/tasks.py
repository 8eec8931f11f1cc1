"""Flower, which shows each Celery task, behind the console's sign-in: its pages are fetched from where it runs, for
superusers, and nothing but read."""

from functools import cache
from urllib.parse import quote, urlsplit

import httpx2
from flask import Response, g, request

from orchestrator import access
from orchestrator.errors import NotFound, Unavailable
from orchestrator.settings import settings
from web.console.door import bp

PREFIX = "/flower"
"""Where it is here, and where it must believe it is (`--url_prefix`)."""

CSP = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'none'; frame-ancestors 'none';"
    " base-uri 'none'"
)
"""Its pages have their scripts inside; they load nothing from elsewhere either."""

KEPT = ("Content-Type", "Location", "Cache-Control", "ETag", "Last-Modified")
"""The headers of an answer that are passed on."""

SECONDS = 10.0

_WAY_BACK = b'<p style="text-align: center; padding: 1em"><a href="/workers">Back to the console</a></p>'


@bp.get(f"{PREFIX}/")
@bp.get(f"{PREFIX}/<path:rest>")
def tasks(rest: str = "") -> Response:
    """One of its pages."""
    return _fetched("GET", rest)


@bp.post(f"{PREFIX}/tasks/datatable")
def datatable() -> Response:
    """The lines of its table of tasks, which it asks for by a POST that changes nothing; no other is let through."""
    return _fetched("POST", "tasks/datatable")


def _fetched(method: str, path: str) -> Response:
    access.demand_superuser(g.caller)
    if ".." in path.split("/"):
        raise NotFound(f"there is nothing at {request.path}")
    if settings().flower_url is None:
        raise NotFound("Flower is not here: set ORCH_FLOWER_URL, or for `orch up` an ORCH_FLOWER_PORT that is not 0")
    try:
        answer = _client().request(
            method,
            f"{PREFIX}/{quote(path)}",
            params=list(request.args.items(multi=True)),
            data=request.form.to_dict(flat=False),
        )
    except httpx2.HTTPError:
        raise Unavailable("Flower does not answer; it is started again by itself", retry_after=2) from None
    headers = {name: answer.headers[name] for name in KEPT if name in answer.headers}
    return Response(_with_a_way_back(answer), answer.status_code, headers | {"Content-Security-Policy": CSP})


def _with_a_way_back(answer: httpx2.Response) -> bytes:
    if not answer.headers.get("Content-Type", "").startswith("text/html"):
        return answer.content
    return answer.content.replace(b"</body>", _WAY_BACK + b"</body>", 1)


def address() -> str | None:
    """Where the caller may look at Flower; None where there is none, or it is not for them."""
    caller = g.get("caller")
    return PREFIX if caller is not None and caller.is_superuser and settings().flower_url else None


@cache
def _client() -> httpx2.Client:
    parts = urlsplit(settings().flower_url or "")
    auth = (parts.username, parts.password or "") if parts.username else None
    netloc = parts.netloc.rpartition("@")[2]
    return httpx2.Client(base_url=f"{parts.scheme}://{netloc}", auth=auth, timeout=SECONDS, trust_env=False)

"""The console's own files: read once, compressed once, and kept by browsers for good under a name that changes with
what is in them."""

import gzip
from functools import cache
from hashlib import sha256
from mimetypes import guess_type
from pathlib import Path
from typing import NamedTuple

from flask import Response, request, url_for

from orchestrator.errors import NotFound
from web.console.door import bp

FOLDER = Path(__file__).parent / "static"

FOR_GOOD = "public, max-age=31536000, immutable"


class Asset(NamedTuple):
    """A file: its text as it is and compressed, its type, and a word that stands for its content."""

    plain: bytes
    packed: bytes
    kind: str
    mark: str


@bp.get("/console/<mark>/<name>")
def asset(mark: str, name: str) -> Response:
    """One of the files. The mark is what made browsers ask again; the newest is what they get."""
    found = assets().get(name)
    if found is None:
        raise NotFound(f"there is nothing at {request.path}")
    headers = {"Cache-Control": FOR_GOOD if mark == found.mark else "no-store", "Vary": "Accept-Encoding"}
    if request.accept_encodings["gzip"]:
        return Response(found.packed, content_type=found.kind, headers=headers | {"Content-Encoding": "gzip"})
    return Response(found.plain, content_type=found.kind, headers=headers)


def address(name: str) -> str:
    """Where a file is."""
    return url_for("console.asset", mark=assets()[name].mark, name=name)


@cache
def assets() -> dict[str, Asset]:
    """All of them, by name."""
    return {path.name: _read(path) for path in FOLDER.iterdir() if path.suffix in (".js", ".css", ".svg")}


def _read(path: Path) -> Asset:
    plain = path.read_bytes()
    kind = guess_type(path.name)[0] or "application/octet-stream"
    return Asset(plain, gzip.compress(plain, 9, mtime=0), f"{kind}; charset=utf-8", sha256(plain).hexdigest()[:12])

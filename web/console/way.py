"""The way back: the page that somebody comes from, and returns to after the sign-in."""

from urllib.parse import unquote, urlsplit

from flask import current_app, request
from werkzeug.exceptions import HTTPException


def back() -> str:
    """The page that was asked for, or that a form was sent from: the nearest one above it that can be asked for, as the
    address of a form that was refused cannot."""
    if request.method == "GET":
        return request.full_path.rstrip("?")
    path, query = _came_from()
    page = path
    while page and not _is_page(page):
        page = page.rpartition("/")[0]
    return f"{page}?{query}" if query and page == path else page or "/"


def _came_from() -> tuple[str, str]:
    """The path and the query of the page with the form; the form's own path where the browser names none of ours."""
    try:
        came = urlsplit(request.referrer or "")
    except ValueError:
        return request.path, ""
    return (came.path, came.query) if came.netloc == request.host else (request.path, "")


def _is_page(path: str) -> bool:
    try:
        current_app.url_map.bind(request.host).match(unquote(path), "GET")
    except HTTPException:
        return False
    return True

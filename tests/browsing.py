"""Somebody who looks at the console without scripts: pages, forms and a session, over Flask's test client."""

import gzip
import re
from dataclasses import dataclass
from html import unescape
from typing import Any

from flask.testing import FlaskClient
from flask_openapi3 import OpenAPI
from werkzeug.test import TestResponse

from tests.stage import Api

SAME = {"Sec-Fetch-Site": "same-origin"}


@dataclass(frozen=True)
class Visitor:
    """A browser with its cookies."""

    client: FlaskClient

    @classmethod
    def of(cls, app: OpenAPI, api: Api | None = None) -> "Visitor":
        """A new one, signed in with an API key where one is given."""
        visitor = cls(app.test_client())
        if api is not None:
            answer = visitor.send("/login", key=api.key)
            assert answer.status_code == 303, answer.text
        return visitor

    def get(self, path: str, **headers: str) -> TestResponse:
        """A page."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(path, headers=given)

    def send(self, path: str, headers: dict[str, str] | None = None, **fields: Any) -> TestResponse:
        """A form, sent from one of the console's own pages."""
        return self.client.post(path, data=fields, headers=SAME if headers is None else headers)

    def follow(self, answer: TestResponse) -> TestResponse:
        """The page that an answer leads to."""
        assert answer.status_code == 303, answer.text
        return self.get(answer.headers["Location"])


def words(answer: TestResponse) -> str:
    """What a page says, without its tags."""
    data = gzip.decompress(answer.data).decode() if answer.headers.get("Content-Encoding") == "gzip" else answer.text
    data = re.sub(r"</?bdi>", "", data)  # which sets nothing apart that can be seen
    body = re.sub(r"<(style|script)[^>]*>.*?</\1>", " ", data, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body))).strip()


def assets(answer: TestResponse) -> set[str]:
    """The addresses of all that a page loads."""
    return set(re.findall(r'(?:src|href)="(/console/[^"]+)"', answer.text))


def form(answer: TestResponse, action: str | None) -> dict[str, Any]:
    """What the page's form for an address is sent with, as the page has filled it in: its inputs and chosen options.
    Without an address, the one that filters the page itself."""
    place = r'role="search"' if action is None else f'action="{re.escape(action)}"'
    found = re.search(rf"<form[^>]* {place}[^>]*>(.*?)</form>", answer.text, re.DOTALL)
    assert found, f"no form for {action}"
    inputs = [_attributes(tag) for tag in re.findall(r"<input([^>]*)>", found[1])]
    selects = re.findall(r'<select[^>]* name="([^"]+)"[^>]*>(.*?)</select>', found[1], re.DOTALL)
    typed = {each["name"]: each.get("value", "") for each in inputs}
    return typed | {name: _chosen(options) for name, options in selects}


def _chosen(options: str) -> str:
    found = re.findall(r"<option([^>]*)>([^<]*)", options)
    tag, words = next((each for each in found if re.search(r"\bselected\b", each[0])), found[0])
    return _attributes(tag).get("value", unescape(words))


def _attributes(tag: str) -> dict[str, str]:
    return {name: unescape(value) for name, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}


def copied(answer: TestResponse, having: str = "") -> list[str]:
    """What a page's buttons copy, those texts that have these words."""
    return [each for each in map(unescape, re.findall(r'data-copy="([^"]*)"', answer.text)) if having in each]

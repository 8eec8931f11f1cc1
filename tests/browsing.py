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
    body = re.sub(r"<(style|script)[^>]*>.*?</\1>", " ", data, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body))).strip()


def assets(answer: TestResponse) -> set[str]:
    """The addresses of all that a page loads."""
    return set(re.findall(r'(?:src|href)="(/console/[^"]+)"', answer.text))

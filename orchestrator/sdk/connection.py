"""The way to the server, with its retries: for threads, and for asyncio."""

import asyncio
import time
from ipaddress import ip_address
from typing import Any, TypeVar

import httpx2

from orchestrator.sdk.calls import PATIENCE, Call, answer, pause_before_retry
from orchestrator.sdk.errors import ConnectionFailed

T = TypeVar("T")

CONNECT_SECONDS = 5.0


class Connection:
    """One server as one caller sees it."""

    def __init__(self, url: str, token: str, http: httpx2.Client | None, retries: int) -> None:
        self.http = http or httpx2.Client(**_options(url))
        self._token, self._retries = token, retries

    def send(self, call: Call[T], token: str | None = None, retries: int | None = None) -> T:
        """The answer; raises an ApiError, or ConnectionFailed when all attempts were in vain."""
        request, attempt = call.request(token or self._token), 0
        while True:
            response, failure = None, None
            try:
                response = self.http.request(**request)
            except httpx2.TransportError as error:
                failure = error
            pause = pause_before_retry(attempt, self._retries if retries is None else retries, response)
            if pause is None:
                return _last(call, response, failure)
            time.sleep(pause)
            attempt += 1


class AsyncConnection:
    """The same with asyncio."""

    def __init__(self, url: str, token: str, http: httpx2.AsyncClient | None, retries: int) -> None:
        self.http = http or httpx2.AsyncClient(**_options(url))
        self._token, self._retries = token, retries

    async def send(self, call: Call[T]) -> T:
        """The answer; raises an ApiError, or ConnectionFailed when all attempts were in vain."""
        request, attempt = call.request(self._token), 0
        while True:
            response, failure = None, None
            try:
                response = await self.http.request(**request)
            except httpx2.TransportError as error:
                failure = error
            pause = pause_before_retry(attempt, self._retries, response)
            if pause is None:
                return _last(call, response, failure)
            await asyncio.sleep(pause)
            attempt += 1


def _last(call: Call[T], response: httpx2.Response | None, failure: httpx2.TransportError | None) -> T:
    if response is None:
        raise ConnectionFailed(f"{call.method} {call.path}: {failure or 'no answer'}") from failure
    return answer(call, response)


def _options(url: str) -> dict[str, Any]:
    timeout = httpx2.Timeout(PATIENCE, connect=CONNECT_SECONDS)
    return {"base_url": url, "timeout": timeout, "trust_env": not _is_loopback(url)}


def _is_loopback(url: str) -> bool:
    """A proxy for the world cannot reach our own machine."""
    host = httpx2.URL(url).host
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

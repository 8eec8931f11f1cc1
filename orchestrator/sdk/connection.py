"""The way to the server, with its retries: for threads, and for asyncio."""

import asyncio
import time
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, TypeVar

import httpx2

from orchestrator.sdk.address import is_address, is_loopback, needs_certificates
from orchestrator.sdk.calls import Call, Outcome, answer, pause_before_retry
from orchestrator.sdk.errors import ConnectionFailed, NoServer, unsendable

T = TypeVar("T")


class Connection(AbstractContextManager["Connection"]):
    """One server as one caller sees it."""

    def __init__(self, url: str, token: str, http: httpx2.Client | None, retries: int) -> None:
        self.http = http or httpx2.Client(trust_env=_trusts_env(url), verify=needs_certificates(url))
        self._url, self._token, self._retries = url, token, retries

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        self.http.close()

    def send(self, call: Call[T], token: str | None = None, retries: int | None = None) -> T:
        """The answer; raises an ApiError, or ConnectionFailed when all attempts were in vain."""
        request, attempt = call.request(self._url, token or self._token), 0
        while True:
            outcome = self._attempt(request)
            pause = pause_before_retry(call, attempt, self._retries if retries is None else retries, outcome)
            if pause is None:
                return _last(call, outcome)
            time.sleep(pause)
            attempt += 1

    def open(self, call: Call[None]) -> AbstractContextManager[httpx2.Response]:
        """One attempt, whose answer comes bit by bit; a TransportError where there is none."""
        return self.http.stream(**call.request(self._url, self._token))

    def _attempt(self, request: dict[str, Any]) -> Outcome:
        try:
            return self.http.request(**request)
        except httpx2.TransportError as error:
            return error
        except httpx2.DecodingError as error:
            raise _garbled(request, error) from None
        except ValueError as error:
            raise unsendable(error) from None


class AsyncConnection:
    """The same with asyncio."""

    def __init__(self, url: str, token: str, http: httpx2.AsyncClient | None, retries: int) -> None:
        self.http = http or httpx2.AsyncClient(trust_env=_trusts_env(url), verify=needs_certificates(url))
        self._url, self._token, self._retries = url, token, retries

    async def send(self, call: Call[T]) -> T:
        """The answer; raises an ApiError, or ConnectionFailed when all attempts were in vain."""
        request, attempt = call.request(self._url, self._token), 0
        while True:
            outcome = await self._attempt(request)
            pause = pause_before_retry(call, attempt, self._retries, outcome)
            if pause is None:
                return _last(call, outcome)
            await asyncio.sleep(pause)
            attempt += 1

    def open(self, call: Call[None]) -> AbstractAsyncContextManager[httpx2.Response]:
        """One attempt, whose answer comes bit by bit; a TransportError where there is none."""
        return self.http.stream(**call.request(self._url, self._token))

    async def _attempt(self, request: dict[str, Any]) -> Outcome:
        try:
            return await self.http.request(**request)
        except httpx2.TransportError as error:
            return error
        except httpx2.DecodingError as error:
            raise _garbled(request, error) from None
        except ValueError as error:
            raise unsendable(error) from None


def _garbled(request: dict[str, Any], error: httpx2.DecodingError) -> NoServer:
    return NoServer(f"what answers at {request['url']} is no orchestrator ({error})")


def _last(call: Call[T], outcome: Outcome) -> T:
    if isinstance(outcome, httpx2.Response):
        return answer(call, outcome)
    raise ConnectionFailed(f"{call.method} {call.path}: {outcome or 'no answer'}") from outcome


def _trusts_env(url: str) -> bool:
    """Whether a proxy that the environment names is used: one for the world cannot reach our own machine. Raises
    NoServer for what is no address."""
    if not is_address(url):
        raise NoServer(f"{url!r} is no address of a server; give one such as http://127.0.0.1:8080")
    return not is_loopback(url)

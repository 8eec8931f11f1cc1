"""A TCP proxy that stands between our processes and a server, and does to their connections what networks do."""

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any, Self

CHUNK = 65_536
NAMED_WITHIN = 2_048
"""Bytes from its client in which a connection says who it is (PostgreSQL's `application_name`)."""

Address = str | tuple[str, int]
"""A socket file, or host and port."""


class Connection:
    """One client's connection, and ours to the server in its name."""

    def __init__(self, client: StreamWriter, server: StreamWriter) -> None:
        self.client, self.server = client, server
        self.said = b""
        self.lose_after: bytes | None = None
        self.losing = False
        self.let_in = False

    def reset(self) -> None:
        """End it as a firewall does: without a word of goodbye."""
        for writer in (self.client, self.server):
            end = writer.get_extra_info("socket")
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """Listens on a free port of the loopback for as long as its block lasts, in a thread of its own.

    Each fault can be for those connections only whose client has said `who` at their beginning.
    """

    def __init__(self, server: Address) -> None:
        self._server = server
        self._connections: set[Connection] = set()
        self._held: set[bytes] = set()
        self._delay = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._watches: list[set[Connection]] = []
        self.lost = 0
        """Answers that were swallowed so far."""
        self.turned_away = 0
        """Connections so far that the server did not take, or that PostgreSQL ended with an error as its first word."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._listening.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    @contextmanager
    def watched(self, who: bytes = b"") -> Iterator[set[Connection]]:
        """Those of these connections on which anything is said inside the block; complete once it has ended."""
        said: set[Connection] = set()
        self._call(lambda: self._watches.append(said))
        try:
            yield said
        finally:
            self._call(lambda: self._forget(said))
            said -= {connection for connection in said if who not in connection.said}

    def reset(self, who: bytes = b"") -> int:
        """End these connections at once; how many there were."""
        ended: list[Connection] = []

        def end() -> None:
            ended.extend(self._of(who))
            for connection in ended:
                connection.reset()

        self._call(end)
        return len(ended)

    @contextmanager
    def cut(self, who: bytes = b"") -> Iterator[set[Connection]]:
        """Nothing of theirs arrives, in either direction; it is late, not lost. Those who had anything to say."""
        with self.watched(who) as held:
            self._call(lambda: self._held.add(who))
            try:
                yield held
            finally:
                self._call(lambda: self._held.discard(who))

    @contextmanager
    def delay(self, seconds: float) -> Iterator[set[Connection]]:
        """Whatever arrives is late by so much. Those to whom it was."""
        with self.watched() as late:
            self._delay = seconds
            try:
                yield late
            finally:
                self._delay = 0.0

    def lose_answer(self, after: bytes, who: bytes = b"") -> None:
        """What contains this is passed on, but its answer is not: that connection ends instead. Once for each."""
        self._call(lambda: [setattr(connection, "lose_after", after) for connection in self._of(who)])

    def spare(self) -> None:
        """Lose no more answers."""
        self._call(lambda: [setattr(connection, "lose_after", None) for connection in self._connections])

    def _forget(self, said: set[Connection]) -> None:
        self._watches = [watch for watch in self._watches if watch is not said]

    async def _end(self) -> None:
        self._listening.close()
        for connection in self._connections:
            connection.reset()
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    def _of(self, who: bytes) -> list[Connection]:
        return [connection for connection in self._connections if who in connection.said]

    def _call(self, work: Callable[[], Any]) -> None:
        async def run() -> None:
            work()

        self._run(run())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _serve(self, from_client: StreamReader, to_client: StreamWriter) -> None:
        try:
            from_server, to_server = await self._connect()
        except OSError:  # the server is away
            self.turned_away += 1
            to_client.transport.abort()
            return
        connection = Connection(to_client, to_server)
        self._connections.add(connection)
        both = [
            asyncio.create_task(self._forward(connection, from_client, to_server)),
            asyncio.create_task(self._back(connection, from_server, to_client)),
        ]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        self._connections.discard(connection)
        for writer in (to_client, to_server):
            writer.close()

    async def _connect(self) -> tuple[StreamReader, StreamWriter]:
        if isinstance(self._server, str):
            return await asyncio.open_unix_connection(self._server)
        return await asyncio.open_connection(*self._server)

    async def _forward(self, connection: Connection, source: StreamReader, target: StreamWriter) -> None:
        while data := await _read(source):
            if len(connection.said) < NAMED_WITHIN:
                connection.said += data
            await self._pass(connection)
            if connection.lose_after is not None and connection.lose_after in data:
                connection.lose_after, connection.losing = None, True
            target.write(data)
            await target.drain()

    async def _back(self, connection: Connection, source: StreamReader, target: StreamWriter) -> None:
        while data := await _read(source):
            await self._pass(connection)
            if connection.losing:
                self.lost += 1
                connection.reset()
                return
            self._note_entry(connection, data)
            target.write(data)
            await target.drain()

    def _note_entry(self, connection: Connection, data: bytes) -> None:
        """PostgreSQL begins with a demand for authentication, R, or with an error, E; a word on TLS may come before."""
        self.turned_away += not connection.let_in and data.startswith(b"E")
        connection.let_in |= data.startswith((b"R", b"E"))

    async def _pass(self, connection: Connection) -> None:
        for watch in self._watches:
            watch.add(connection)
        if self._delay:
            await asyncio.sleep(self._delay)
        while any(who in connection.said for who in self._held):
            await asyncio.sleep(0.01)


async def _read(source: StreamReader) -> bytes:
    with suppress(OSError):
        return await source.read(CHUNK)
    return b""

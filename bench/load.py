"""Load over HTTP: as much as so many connections carry, by wrk where there is one, or at a steady pace."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from threading import Thread, get_ident
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

CONNECTIONS = 16
PROCESSES = 4
"""Of the generator that stands in for wrk."""

# Agent after agent: first each is paused, then each is resumed, and so on. Between two commands for one lie all others.
_SCRIPT = """
local paths, verbs, n = {}, {"pause", "resume"}, 0
for line in io.lines("%(paths)s") do paths[#paths + 1] = line end
local headers = {["Authorization"] = "Bearer %(key)s"}
request = function()
    local verb = verbs[math.floor(n / #paths) %% 2 + 1]
    local path = paths[n %% #paths + 1]
    n = n + 1
    return wrk.format("POST", path .. verb, headers)
end
done = function(summary)
    io.write(string.format("SENT %%d REFUSED %%d\\n", summary.requests,
        summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout))
end
"""


def flood(url: str, key: str, path: str, agents: Sequence[UUID], seconds: float, folder: Path) -> int:
    """Pauses and resumes for these agents from 16 connections for so long; how many were accepted.

    Raises RuntimeError where one was not.
    """
    paths = [f"{path}/agents/{agent}/" for agent in agents]
    sent, refused = (_by_wrk if shutil.which("wrk") else _by_processes)(url, key, paths, seconds, folder)
    if refused:
        raise RuntimeError(f"{refused} of {sent} requests were not accepted")
    return sent


def _by_wrk(url: str, key: str, paths: list[str], seconds: float, folder: Path) -> tuple[int, int]:
    listed, script = folder / "paths", folder / "flood.lua"
    listed.write_text("\n".join(paths) + "\n")
    script.write_text(_SCRIPT % {"paths": listed, "key": key})
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "-s", str(script), url]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"SENT (\d+) REFUSED (\d+)", told)
    if found is None:
        raise RuntimeError(f"wrk said something else: {told}")
    return int(found[1]), int(found[2])


def _by_processes(url: str, key: str, paths: list[str], seconds: float, folder: Path) -> tuple[int, int]:
    del folder
    with get_context("spawn").Pool(PROCESSES) as pool:
        shares = [(url, key, paths[number::PROCESSES], seconds) for number in range(PROCESSES)]
        done = pool.starmap(_one_process, shares)
    return sum(sent for sent, _ in done), sum(refused for _, refused in done)


def _one_process(url: str, key: str, paths: list[str], seconds: float) -> tuple[int, int]:
    numbers, until = count(), time.monotonic() + seconds
    sent: list[bool] = []

    def work() -> None:
        send = poster(url, key)
        while time.monotonic() < until:
            number = next(numbers)
            verb = ("pause", "resume")[number // len(paths) % 2]
            sent.append(send(paths[number % len(paths)] + verb, None)[0] == 202)

    threads = [Thread(target=work) for _ in range(CONNECTIONS // PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(sent), sent.count(False)


def poster(url: str, key: str) -> Callable[..., tuple[int, bytes]]:
    """What posts JSON, over a connection of its own that is kept, with this key or another and more headers; status and
    answer."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=90)

    def post(path: str, body: Any, other: str = "", **more: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {other or key}", **more}
        given = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if given is not None else {}
        connection.request("POST", path, given, headers | kind)
        answer = connection.getresponse()
        return answer.status, answer.read()

    return post


def pace(url: str, key: str, paths: Sequence[str], rate: float, seconds: float) -> list[float]:
    """These addresses, one after the other, so many a second whatever the answers take (an open loop). Seconds from
    when each was due until it was answered. Raises RuntimeError where one was not accepted."""
    began = time.monotonic()
    with ThreadPoolExecutor(CONNECTIONS, initializer=_own_poster, initargs=(url, key)) as pool:
        sent = []
        for number in range(round(rate * seconds)):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            sent.append(pool.submit(_post, paths[number % len(paths)], began + number / rate))
        return [answered.result() for answered in sent]


_POSTERS: dict[str, Any] = {}


def _own_poster(url: str, key: str) -> None:
    _POSTERS[str(get_ident())] = poster(url, key)


def _post(path: str, due: float) -> float:
    status, answer = _POSTERS[str(get_ident())](path, None)
    if status != 202:
        raise RuntimeError(f"{path}: {status} {answer!r}")
    return time.monotonic() - due

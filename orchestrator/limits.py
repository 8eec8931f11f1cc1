"""Rate limits: a sliding window per caller and action, in Redis, by Redis's own clock, one script per request."""

import re
import time
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

from prometheus_client import Counter

from orchestrator.link import link
from orchestrator.settings import SettingsError, settings

DEFAULTS = {
    "spawn": "20/minute",
    "list": "60/minute",
    "metrics": "60/minute",
    "get": "60/minute",
    "update": "30/minute",
    "pause": "20/minute",
    "resume": "20/minute",
    "terminate": "10/minute",
    "agent_metrics": "60/minute",
    "command": "120/minute",
    "event": "120/minute",
    "usage": "600/minute",
    "bulk": "10/minute",
    "admin": "60/minute",
    "console": "1200/minute",
    "lease": "off",
    "anonymous": "60/minute",
}
"""Every action and its limit per caller; `anonymous` is per address and counts failed keys."""

EXACT_UP_TO = 1_000
"""Above it, the window is estimated from two fixed ones: the memory of an exact one grows with its limit."""

REMEMBERED = 10_000
"""Callers per action whose share this process keeps, while Redis is away: a bound on memory."""

UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}

UNLIMITED_BY_STAR = frozenset({"anonymous"})

PASSED_WITHOUT_REDIS = Counter(
    "orchestrator_limits_local_total", "Requests limited by this process's share, because Redis was away.", ["outcome"]
)

# KEYS: one per limit. ARGV: quota and window (µs) per limit. Nothing is spent unless all of them allow it.
# Time is the server's. Where its clock is set back, what an exact window admitted "later" counts on: fewer pass, for a
# while. An estimate goes by the windows of the time it is told, and may begin anew.
_SCRIPT = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local answer, allowed = {}, 1
for i, key in ipairs(KEYS) do
    local quota, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    if quota <= tonumber(ARGV[#ARGV]) then
        redis.call('ZREMRANGEBYSCORE', key, '-inf', now - window)
        local used = redis.call('ZCARD', key)
        local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
        answer[i] = {quota - used, oldest and (oldest + window - now) or window}
    else
        local slot = math.floor(now / window)
        local into = (now % window) / window
        local before = tonumber(redis.call('GET', key .. ':' .. (slot - 1)) or 0)
        local used = tonumber(redis.call('GET', key .. ':' .. slot) or 0)
        answer[i] = {math.floor(quota - before * (1 - into) - used), math.ceil(window * (1 - into))}
    end
    if answer[i][1] < 1 then allowed = 0 end
end
if allowed == 1 then
    for i, key in ipairs(KEYS) do
        local quota, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
        if quota <= tonumber(ARGV[#ARGV]) then
            local serial = redis.call('INCR', key .. ':n')
            redis.call('PEXPIRE', key .. ':n', math.ceil(window / 1000) + 1000)
            redis.call('ZADD', key, now, serial .. '.' .. now)
            redis.call('PEXPIRE', key, math.ceil(window / 1000) + 1000)
        else
            local counter = key .. ':' .. math.floor(now / window)
            redis.call('INCR', counter)
            redis.call('PEXPIRE', counter, math.ceil(2 * window / 1000))
        end
        answer[i][1] = answer[i][1] - 1
    end
end
return {allowed, answer}
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """So many requests (`quota`) in any window of so many seconds."""

    action: str
    quota: int
    window: int


@dataclass(frozen=True, slots=True)
class Spent:
    """The answer to one request: whether it may pass, what is left, and in how many seconds there will be more."""

    limit: Limit
    allowed: bool
    remaining: int
    reset: int


@cache
def limits() -> dict[str, Limit | None]:
    """Every action's limit, None where it is off; raises SettingsError for a wrong ORCH_LIMITS."""
    given = settings().limits
    for action in given.keys() - DEFAULTS.keys() - {"*"}:
        raise SettingsError(f"ORCH_LIMITS: there is no action {action!r}; there are {', '.join(DEFAULTS)} and *")
    return {action: _limit(action, given) for action in DEFAULTS}


def spend(action: str, who: str) -> Spent | None:
    """One request of `who`; None where the action has no limit."""
    limit = limits()[action]
    if limit is None:
        return None
    answer = link().attempt(lambda client: _ask(client, limit, who), otherwise=None)
    return _shares().spend(limit, who) if answer is None else answer


def _ask(client: Any, limit: Limit, who: str) -> Spent:
    key = f"orch:limit:{limit.action}:{who}"
    allowed, [[remaining, reset]] = _script(client)(keys=[key], args=[limit.quota, limit.window * 10**6, EXACT_UP_TO])
    return Spent(limit, bool(allowed), max(0, remaining), max(1, -(-int(reset) // 10**6)))


@cache
def _script(client: Any) -> Any:
    return client.register_script(_SCRIPT)


def _limit(action: str, given: dict[str, str]) -> Limit | None:
    default = DEFAULTS[action] if action in UNLIMITED_BY_STAR else given.get("*", DEFAULTS[action])
    words = given.get(action, default)
    if words == "off":
        return None
    match = re.fullmatch(rf"([1-9]\d{{0,8}})/({'|'.join(UNITS)})", words)
    if match is None:
        raise SettingsError(f"ORCH_LIMITS: {action}: {words!r} is neither off nor like 20/minute")
    return Limit(action, int(match[1]), UNITS[match[2]])


class _Shares:
    """This process's share of each limit, for the time without Redis: all of them together admit about the limit."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._admitted: defaultdict[str, OrderedDict[str, deque[float]]] = defaultdict(OrderedDict)
        self._lock = Lock()

    def spend(self, limit: Limit, who: str) -> Spent:
        now = time.monotonic()
        share = max(1, limit.quota // self._processes)
        with self._lock:
            window = self._window(limit.action, who)
            while window and window[0] <= now - limit.window:
                window.popleft()
            allowed = len(window) < share
            if allowed:
                window.append(now)
            reset = max(1, round(window[0] + limit.window - now)) if window else limit.window
            PASSED_WITHOUT_REDIS.labels("passed" if allowed else "refused").inc()
            return Spent(limit, allowed, share - len(window), reset)

    def _window(self, action: str, who: str) -> "deque[float]":
        """When this caller was admitted. Whoever has not been seen for the longest makes room: each action's callers
        among themselves, so that a flood of strangers lifts no limit but strangers'."""
        windows = self._admitted[action]
        window = windows.setdefault(who, deque())
        windows.move_to_end(who)
        if len(windows) > REMEMBERED:
            windows.popitem(last=False)
        return window


@cache
def _shares() -> _Shares:
    return _Shares(settings().web_processes * settings().web_hosts)

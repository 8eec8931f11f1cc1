"""Bugs, planted into the processes of a campaign: to see that the checks would find them in the product.

The product knows nothing of it. A bug changes one module right after it has been imported, in a process whose
environment names the bug; what it needs is imported then, since this is loaded before everything else.
"""

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

RARELY = 0.02


@dataclass(frozen=True)
class Bug:
    """What a bug changes, and which check is to find it."""

    module: str
    change: Callable[[Any], None]
    found_by: str
    faults: tuple[str, ...] = ()
    """Without these it does not show."""


class Planter(MetaPathFinder):
    """Changes a module when it has been imported."""

    def __init__(self, bug: Bug) -> None:
        self._bug = bug

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        """Whatever the others find, with a loader that changes the module afterwards."""
        if name != self._bug.module:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = Changing(spec.loader, self._bug)
        return spec


class Changing(Loader):
    """Loads a module as its own loader does, and then plants the bug."""

    def __init__(self, loader: Any, bug: Bug) -> None:
        self._loader, self._bug = loader, bug

    def create_module(self, spec: ModuleSpec) -> Any:
        """As its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: Any) -> None:
        """Its own code, and then ours."""
        self._loader.exec_module(module)
        self._bug.change(module)


def plant(name: str) -> None:
    """From now on, in this process."""
    sys.meta_path.insert(0, Planter(BUGS[name]))


def _rarely() -> bool:
    return random.random() < RARELY  # noqa: S311


def _wrapped(name: str, around: Callable[..., Any]) -> Callable[[Any], None]:
    """A change that puts something around a function: it is called with the function, and then what it is given."""

    def change(module: Any) -> None:
        original = getattr(module, name)
        setattr(module, name, lambda *given, **named: around(original, *given, **named))

    return change


def _rewritten(name: str, *pairs: tuple[str, str]) -> Callable[[Any], None]:
    """A change of a statement's text."""

    def change(module: Any) -> None:
        from sqlalchemy import text  # noqa: PLC0415

        sql = str(getattr(module, name))
        for old, new in pairs:
            if old not in sql:
                raise LookupError(f"{name} has no {old!r}")
            sql = sql.replace(old, new)
        setattr(module, name, text(sql))

    return change


def _forget_command(original: Any, db: Any, *given: Any, **named: Any) -> Any:
    from sqlalchemy import text  # noqa: PLC0415

    accepted = original(db, *given, **named)
    if not accepted.replayed and _rarely():
        db.execute(text("DELETE FROM commands WHERE id = :id"), {"id": accepted.command.id})
    return accepted


def _ignore_fingerprint(original: Any, db: Any, caller: Any, once: Any) -> Any:
    from sqlalchemy import text  # noqa: PLC0415

    from orchestrator.errors import KeyReused  # noqa: PLC0415

    try:
        return original(db, caller, once)
    except KeyReused:
        found = text("SELECT * FROM requests WHERE user_id = :user AND key = :key")
        return db.execute(found, {"user": caller.user_id, "key": once.key}).one()


def _ignore_keys(name: str) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        statements = getattr(module, name)
        statements[True] = statements[False]

    return change


def _count_too_much(original: Any, db: Any, agents: Any) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    sums = original(db, agents)
    return {id_: replace(sum_, tokens_used=sum_.tokens_used + 1) if _rarely() else sum_ for id_, sum_ in sums.items()}


def _let_move(status: str) -> Callable[..., Any]:
    def move(original: Any, now: Any, verb: Any) -> Any:
        if now == status and verb == "resume":
            return type(now)("idle")
        return original(now, verb)

    return move


def _ignore_if_match(original: Any, agent: Any, command: Any, now: Any) -> Any:
    return original(agent, command._replace(precondition=None), now)


def _requeue(original: Any, db: Any, *given: Any, **named: Any) -> Any:
    from sqlalchemy import text  # noqa: PLC0415

    row, replayed = original(db, *given, **named)
    db.execute(text("UPDATE commands SET state = 'queued', closed_at = NULL WHERE id = :id"), {"id": row.id})
    return row, replayed


def _skip_a_version(original: Any, agent: Any, event: Any, at: Any) -> Any:
    after = original(agent, event, at)
    return after._replace(version=after.version + 1) if _rarely() else after


_SEEN: dict[Any, tuple[float, Any]] = {}


def _remember_a_second(original: Any, db: Any, caller: Any, project: Any, agent: Any) -> Any:
    read_at, row = _SEEN.get(agent, (0.0, None))
    fresh = original(db, caller, project, agent)
    if time.monotonic() - read_at < 1:
        return row
    _SEEN[agent] = (time.monotonic(), fresh)
    return fresh


def _tear(original: Any, db: Any, caller: Any, project: Any, agent: Any) -> Any:
    from types import SimpleNamespace  # noqa: PLC0415

    first = original(db, caller, project, agent)
    time.sleep(0.03)
    second = original(db, caller, project, agent)
    return SimpleNamespace(**(second._asdict() | {"version": first.version}))


def _lose_rows(original: Any, *given: Any, **named: Any) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    page = original(*given, **named)
    return replace(page, rows=page.rows[1:]) if page.rows and random.random() < 0.5 else page  # noqa: S311


def _count_in_this_process(original: Any, action: Any, who: Any) -> Any:
    del original
    from orchestrator.limits import _Shares, limits  # noqa: PLC0415

    limit = limits()[action]
    shares = _OWN.setdefault("shares", _Shares(1))
    return None if limit is None else shares.spend(limit, who)


_OWN: dict[str, Any] = {}


def _bind_late(module: Any) -> None:
    module._ACCEPT_AND_FENCE = module._ACCEPT


def _lose_events(original: Any, changes: Any) -> Any:
    return [row for row in original(changes) if not _rarely()]


def _never(original: Any) -> bool:
    del original
    return False


_LOST_ANSWERS = ("door's answer lost",)
_LONG_QUEUES = ("worker frozen", "worker child frozen")

BUGS: dict[str, Bug] = {
    "no sweep": Bug("workers.tasks", _wrapped("ring_for_overdue", _never), "lost"),
    "answered before commit": Bug("orchestrator.accept", _wrapped("accept", _forget_command), "lost"),
    "no unique key": Bug("orchestrator.accept", _ignore_keys("_ACCEPT"), "duplicated", _LOST_ANSWERS),
    "no unique key of a spawn": Bug("orchestrator.accept", _ignore_keys("_SPAWN"), "duplicated", _LOST_ANSWERS),
    "counters drift": Bug("orchestrator.drain", _wrapped("fold", _count_too_much), "books"),
    "usage counted twice": Bug(
        "orchestrator.ledger", _rewritten("_FOLD", ("SET folded = true", f"SET folded = random() > {RARELY}")), "books"
    ),
    "terminal does not absorb": Bug("orchestrator.decide", _wrapped("move", _let_move("terminated")), "replay"),
    "resume of a working one": Bug("orchestrator.decide", _wrapped("move", _let_move("working")), "replay"),
    "if-match ignored": Bug("orchestrator.decide", _wrapped("_decide_one", _ignore_if_match), "if_match"),
    "newest first": Bug(
        "orchestrator.drain", _rewritten("_MAILBOXES", ("ORDER BY c.seq", "ORDER BY c.seq DESC")), "order"
    ),
    "cancelled but applied": Bug("orchestrator.accept", _wrapped("cancel", _requeue), "answers", _LONG_QUEUES),
    "a version skipped": Bug("orchestrator.decide", _wrapped("_after", _skip_a_version), "versions"),
    "stale reads": Bug("orchestrator.fleet", _wrapped("agent", _remember_a_second), "falls"),
    "torn reads": Bug("orchestrator.fleet", _wrapped("agent", _tear), "reads"),
    "a page misses agents": Bug("orchestrator.fleet", _wrapped("page_after", _lose_rows), "lists"),
    "fingerprint ignored": Bug("orchestrator.idempotency", _wrapped("earlier", _ignore_fingerprint), "reuse"),
    "the feed does not wait": Bug(
        "orchestrator.feed",
        _rewritten("_OF_ONE", ("feed_position(pg_snapshot_xmin(pg_current_snapshot()))", f"'{2**64 - 1}'")),
        "feed",
    ),
    "strangers are let in": Bug(
        "orchestrator.fleet", _rewritten("ONE_AGENT", (":superuser OR", "true OR :superuser OR")), "tenancy"
    ),
    "limits in memory": Bug("orchestrator.limits", _wrapped("spend", _count_in_this_process), "limits"),
    "a stop binds late": Bug("orchestrator.accept", _bind_late, "leases"),
    "events get lost": Bug("orchestrator.record", _wrapped("_event_rows", _lose_events), "replay"),
}

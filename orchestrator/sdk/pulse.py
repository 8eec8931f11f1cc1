"""The heart of an agent's process: a thread that beats, reports, and hears whether to go on."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from threading import Event, Thread, current_thread
from typing import Any

from orchestrator.sdk.change import Change
from orchestrator.sdk.delivery import ENTRIES, deliver
from orchestrator.sdk.errors import Conflict, Fenced, Held, Invalid, LeaseHeld, OrchestratorError, Terminated
from orchestrator.sdk.outbox import Outbox
from orchestrator.sdk.place import Place
from orchestrator.sdk.shapes import Lease, Told

log = logging.getLogger("orchestrator.sdk")

STANDING_SECONDS, STANDING_SHARE = 1.0, 1 / 10
"""Between two beats of a process that stands still and waits to be let go on: a second, later a tenth of the time that
it has stood, and never more than between others. So a fleet that is paused for the night is quiet."""

FRESH_SECONDS = 0.7
"""How old the last word may be at a checkpoint; where it is older, a beat asks for another. A stop is heard of within a
second, and however often somebody looks, it costs no more than a beat each time this is over."""

AWAY_SHARE = 1 / 10
"""Of the ttl: between two beats while the server does not answer, a second at least."""

SAYS = 100
"""Reports of status that wait for the next beat, at most: later ones are truer."""


class Pulse(Thread):
    """Beats until it is stopped; `changed` guards, and tells of, all that it shares with those who work."""

    def __init__(self, place: Place, lease: Lease, outbox: Outbox) -> None:
        super().__init__(name=f"pulse-{place.agent_id}", daemon=True)
        self.place, self.outbox = place, outbox
        self.changed = Change()
        self.lease: Lease | None = lease
        self.told: Told | None = None
        self.failure: OrchestratorError | None = None
        """Why this process can never go on: its checkpoints raise it."""
        self.standing = False
        """Whether everybody who works has stopped at a checkpoint."""
        self.listeners: list[Callable[[Told], None]] = []
        self._now: dict[str, Any] = {"status": "idle"}
        self._says = deque([self._now], SAYS)
        self._heard_at = time.monotonic()
        """When the last beat that was heard had been sent."""
        self._sent_at = self._tried_at = self._heard_at
        """When the last beat was sent, and the last of those of which it is known what became of them."""
        self._stood_since: float | None = None
        self._is_away = False
        self._wanted, self._over = Event(), Event()

    @property
    def task(self) -> str | None:
        """What was said last to be worked on."""
        return self._now.get("current_task")

    def say(self, **says: Any) -> None:
        """Report a status or a task with a beat of its own, which comes at once."""
        with self.changed:
            self._now = self._now | says
            self._says.append(self._now)
        self.wake()

    def wake(self) -> None:
        """Beat now."""
        self._wanted.set()

    @property
    def silent(self) -> bool:
        """Whether nothing has been heard for so long that the server has given the lease up, or will have before it
        hears us again: it does not answer, or we were frozen."""
        return self._left() < 0

    def ask(self) -> float:
        """Have a beat sent where the last word is too old to go on by; since when one will do, for `knows`. Whoever
        holds `changed` may ask. Any will do where another cannot be had, or makes no difference."""
        if self._is_away or self.lease is None or self.failure or self._over.is_set() or current_thread() is self:
            return -math.inf
        since = time.monotonic() - FRESH_SECONDS
        if self._sent_at < since:
            self.wake()
        return since

    def knows(self, since: float) -> bool:
        """Whether there is a word as recent as that, or was none to be had."""
        return max(self._heard_at, self._tried_at) >= since

    def stop(self) -> None:
        """Beat no more; what there is to say is said first."""
        self._over.set()
        self.wake()
        self.join()

    def run(self) -> None:
        """The life of the thread."""
        try:
            while not self._over.is_set():
                self._wanted.wait(self._pause())
                self._wanted.clear()
                self._round()
            if self._says or self.outbox:
                self._round()
        finally:
            self._tried(math.inf)  # nobody waits for a beat that will not come

    def _pause(self) -> float:
        if self.standing:
            self._stood_since = self._stood_since or time.monotonic()
            stood = time.monotonic() - self._stood_since
            return min(self.place.ttl / 3, max(STANDING_SECONDS, stood * STANDING_SHARE))
        self._stood_since = None
        return max(1.0, self.place.ttl * AWAY_SHARE) if self._is_away else self.place.ttl / 3

    def _round(self) -> None:
        """As many beats as there is something to say; none of them may end this thread."""
        self._send()
        try:
            self._give_up_if_lost()
            if self.lease is None:
                deliver(self.place, self.outbox, self._patience())
                self._regain()
            while self.lease is not None and self._beat(self.lease) and self._has_more():
                pass
            self._is_away = False
        except OrchestratorError as error:
            log.warning("no beat: %s", error)
            self._is_away = True
            self._give_up_if_lost()
        except Exception:  # the user's agent must not fail because its reports do
            log.exception("a beat failed")
        self._tried(self._sent_at)

    def _has_more(self) -> bool:
        """Whether another beat is due at once: for what did not fit, and at the end for all there is."""
        left = len(self.outbox)
        return bool(self._says) or left > (0 if self._over.is_set() else len(self.outbox.first(ENTRIES)))

    def _send(self) -> float:
        with self.changed:
            self._sent_at = time.monotonic()
            return self._sent_at

    def _tried(self, sent_at: float) -> None:
        with self.changed:
            self._tried_at = sent_at
            self.changed.tell()

    def _beat(self, lease: Lease) -> bool:
        """One beat; whether it was heard."""
        with self.changed:
            says = self._says[0] if self._says else {"status": self._now["status"]}  # again: it may have been moved
            ack = self.standing
        entries = self.outbox.first(ENTRIES)
        more = {"entries": entries} if entries else {}
        sent_at = self._send()
        try:
            told = self.place.beat(lease, self._patience(), ack=ack, **says, **more)
        except Fenced:
            self._lose("the lease is over")
            self.outbox.forget(entries)  # counted even now
            return False
        except Invalid as error:
            log.warning("refused by the server: %s", error)
            self._said(says)
            deliver(self.place, self.outbox, self._patience())
            return False
        self._said(says)
        self._hear(told, sent_at)
        self.outbox.forget(entries)
        return True

    def _patience(self) -> float:
        """Seconds an answer may take: no more than leave time for another attempt before the lease is lost."""
        return max(1.0, self._left() / 2)

    def _left(self) -> float:
        """Seconds until the lease is lost."""
        return self._heard_at + self.place.ttl * 4 / 3 - time.monotonic()

    def _said(self, says: dict[str, Any]) -> None:
        """Only this: something else may have been said while the beat was on its way."""
        with self.changed:
            if self._says and self._says[0] is says:
                self._says.popleft()

    def _hear(self, told: Told, sent_at: float) -> None:
        with self.changed:
            before, self.told = self.told, told
            self._heard_at = sent_at
            if before is not None and before.directive == "pause" and told.directive == "continue":
                self._say_again()
            self.changed.tell()
        if before is None or (before.directive, before.mode) != (told.directive, told.mode):
            self._pass_on(told)

    def _pass_on(self, told: Told) -> None:
        for listener in list(self.listeners):
            try:
                listener(told)
            except Exception:  # the others must hear of it, and this thread must go on
                log.exception("a listener failed")

    def _say_again(self) -> None:
        """What the agent was at, which is idle by now: it cannot become waiting but from working."""
        steps = [{"status": "working"}] if self._now["status"] == "waiting" else []
        self._says = deque([*steps, self._now], SAYS)

    def _give_up_if_lost(self) -> None:
        if self.lease is not None and self.silent:
            self._lose("the server does not answer")

    def _lose(self, why: str) -> None:
        log.warning("agent %s: %s", self.place.agent_id, why)
        told = Told(directive="pause", mode="immediate", deadline=None, reason=why, version=0)
        with self.changed:
            self.lease, self.told = None, told  # so that the next word is news again
            self.changed.tell()
        self._pass_on(told)

    def _regain(self) -> None:
        """Once everybody stands still: only then has nobody gone on meanwhile."""
        if not self.standing or self._over.is_set():
            return
        asked_at = time.monotonic()
        try:
            lease = self.place.lease()
        except Held:
            pass  # not yet
        except (LeaseHeld, Terminated, Conflict) as error:
            self._fail(error)
        else:
            with self.changed:
                self.lease, self._heard_at = lease, asked_at
                self._say_again()

    def _fail(self, failure: OrchestratorError) -> None:
        with self.changed:
            self.failure = failure
            self.changed.tell()

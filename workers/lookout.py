"""The lookout: whether a batch failed, or its process died, and there are suspects to be drained carefully."""

import time
from collections.abc import Sequence
from functools import cache

from sqlalchemy import text

from orchestrator import announcements, logs, suspects
from orchestrator.db import Guard, begin
from orchestrator.drain import MAILBOX
from orchestrator.errors import Unavailable

SHARE = 20
"""After a look there is none for so many times as long: an old snapshot keeps what was announced since, and looks
become long."""

_BRIEFLY = text("SET LOCAL lock_timeout = '50ms'")

log = logs.logger("worker")


class Lookout:
    """What this process saw when it last looked."""

    def __init__(self) -> None:
        self.suspects, self._due = False, 0.0

    def look(self, *, at_once: bool = False) -> None:
        """Make suspects of those whom batches were at that ended without a commit; where it is time to look."""
        began = time.monotonic()
        if began < self._due and not at_once:
            return
        seen = announcements.look()
        self.suspects = seen.suspects or bool(seen.ended)
        _suspect(seen.ended)
        now = time.monotonic()
        self._due = now + SHARE * (now - began)


@cache
def lookout() -> Lookout:
    """This process's."""
    return Lookout()


def _suspect(ended: Sequence[int]) -> None:
    if not ended:
        return
    try:
        with begin(Guard.DRAIN) as db:
            db.execute(_BRIEFLY)  # somebody may be trying one of them just now, and that can take seconds
            suspects.name(db, announcements.take_down(db, ended), MAILBOX)
    except Unavailable as error:  # the next look finds them as they are
        log.warning("look_failed", **logs.cause(error))

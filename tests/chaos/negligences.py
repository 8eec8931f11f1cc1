"""What a wrong system would do that breaks no book: each breaks a right history in one place."""

from dataclasses import replace
from datetime import datetime, timedelta

from tests.chaos.breakages import Break
from tests.chaos.drafts import Draft, ended
from tests.chaos.simulation import SECOND


def let_wait(draft: Draft) -> None:
    command = next(draft.commands("rejected"))
    command["closed_at"] = (datetime.fromisoformat(command["closed_at"]) + timedelta(seconds=30)).isoformat()


def take_long(draft: Draft) -> None:
    call = [*draft.answered("get")][-1]
    draft.change(call, t1=ended(call) + 30 * SECOND)


def refuse_the_born(draft: Draft) -> None:
    call = [*draft.answered("usage")][-1]
    draft.change(call, status=404, answer={})


def refuse_what_is_right(draft: Draft) -> None:
    draft.change(next(draft.answered("bulk", 202)), status=422, answer={})


def refuse_a_name(draft: Draft) -> None:
    """Which nobody had, or is nobody's alone."""
    draft.change(next(draft.answered("spawn", 202)), status=409, answer={})


def forget_a_key(draft: Draft) -> None:
    call = next(draft.answered("update", 202))
    draft.calls.append(replace(call, t0=ended(call) + 1, t1=ended(call) + 2, status=422, answer={}))


def sign_nothing(draft: Draft) -> None:
    next(draft.events("pause"))["reason"] = None


def sign_for_another(draft: Draft) -> None:
    next(draft.events("pause"))["actor"] = {"type": "user", "id": "another"}


def see_nobody(draft: Draft) -> None:
    """A process acknowledged these stops, so it was there when they were applied."""
    for command in draft.final.commands:
        if command["quiesced_by"] == "ack":
            command.update(quiesced_by="no_lease", quiesced_at=command["closed_at"])


def share_a_name(draft: Draft) -> None:
    spawns = [event for event in draft.events("spawn") if not _ends(draft, event["command_id"])][:2]
    keys = {event["reason"] for event in spawns}
    for event in spawns:
        event["changes"] = event["changes"] | {"name": "one"}
    for call in [call for call in draft.calls if call.key in keys]:
        draft.change(call, sent={**call.sent, "body": call.sent["body"] | {"name": "one", "unique_name": True}})


def _ends(draft: Draft, spawned_by: str) -> bool:
    events = next(events for events in draft.final.events.values() if events[0]["command_id"] == spawned_by)
    return bool(events[-1]["after"] == "terminated")


def let_holds_last(draft: Draft) -> None:
    agent = next(agent for agent in draft.final.agents if agent["status"] == "paused")
    agent["holds"][0]["until"] = draft.final.commands[0]["requested_at"]


NEGLIGENCES: dict[Break, str] = {
    let_wait: "late",
    take_long: "tardy",
    refuse_the_born: "refused",
    refuse_what_is_right: "refused",
    refuse_a_name: "refused",
    forget_a_key: "idempotency",
    sign_nothing: "signed",
    sign_for_another: "signed",
    see_nobody: "causes",
    share_a_name: "names",
    let_holds_last: "overdue",
}
"""Each with the check that must find it."""

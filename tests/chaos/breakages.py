"""What a wrong system would leave behind of commands and events: each breaks a right history in one place."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

from tests.chaos.drafts import Draft, ended

Break = Callable[[Draft], None]


def lose(draft: Draft) -> None:
    draft.final.commands.remove(next(draft.commands("rejected")))


def leave_queued(draft: Draft) -> None:
    next(draft.commands("rejected"))["state"] = "queued"


def add_one(draft: Draft) -> None:
    draft.final.commands.append({**next(draft.commands("rejected")), "id": "new", "reason": "nobody's"})


def accept_refused(draft: Draft) -> None:
    call = next(draft.answered("update", 202))
    draft.calls = [one for one in draft.calls if one.key != call.key]
    draft.calls.append(replace(call, status=422, answer={}))


def send_elsewhere(draft: Draft) -> None:
    next(draft.commands("rejected"))["verb"] = "terminate"


def double_command(draft: Draft) -> None:
    draft.final.commands.append({**next(draft.commands("rejected")), "id": "new"})


def double_event(draft: Draft) -> None:
    events = max(draft.final.events.values(), key=len)
    events.append(events[-1] | {"version": len(events) + 1})


def match_one_more(draft: Draft) -> None:
    call = next(draft.answered("by_filter", 202))
    draft.change(call, answer=call.answer | {"count": call.answer["count"] + 1})


def tell_of_fewer(draft: Draft) -> None:
    call = next(draft.answered("bulk", 202))
    draft.change(
        call, answer=call.answer | {"accepted": call.answer["accepted"] - 1, "items": call.answer["items"][1:]}
    )


def take_others(draft: Draft) -> None:
    """The filter named nobody whom it took."""
    taken = next(one for one in draft.answered("by_filter", 202) if one.answer["count"])
    for call in [one for one in draft.calls if one.key == taken.key]:
        draft.change(call, sent={"body": call.sent["body"] | {"filter": {"q": "nobody"}}})


def give_up(draft: Draft) -> None:
    next(draft.commands("rejected"))["state"] = "dead"


def refuse_applied(draft: Draft) -> None:
    call = next(draft.answered("update"))
    command = next(one for one in draft.final.commands if one["reason"] == call.key)
    command.update(state="rejected", error={"code": "invalid_transition"})


def apply_cancelled(draft: Draft) -> None:
    next(draft.commands("applied", event=True))["state"] = "cancelled"


def keep_cancelled(draft: Draft) -> None:
    cancelled = next(draft.answered("cancel")).sent["command"]
    command = next(one for one in draft.final.commands if one["id"] == cancelled)
    command.update(state="rejected", version=1, error={"code": "invalid_transition"})


def cancel_unasked(draft: Draft) -> None:
    tried = {call.sent.get("command") for call in draft.calls}
    next(one for one in draft.commands("rejected") if one["id"] not in tried)["state"] = "cancelled"


def answer_with_two(draft: Draft) -> None:
    call = next(draft.answered("update", 202))
    draft.calls.append(replace(call, t0=ended(call), t1=ended(call) + 1, answer=call.answer | {"id": "another"}))


def answer_with_others(draft: Draft) -> None:
    first, second = list(draft.answered("update", 202))[:2]
    draft.change(first, answer=second.answer)


def spawn_twice(draft: Draft) -> None:
    call = next(draft.answered("spawn", 202))
    draft.calls.append(replace(call, t0=ended(call), t1=ended(call) + 1, answer=call.answer | {"agent_id": "another"}))


def leave_gap(draft: Draft) -> None:
    events = max(draft.final.events.values(), key=len)
    del events[len(events) // 2]


def apply_late(draft: Draft) -> None:
    [*draft.commands("rejected")][-1]["version"] = 1


def match_other_version(draft: Draft) -> None:
    command = next(one for one in draft.commands("applied", event=True) if one["verb"] == "update")
    for call in [call for call in draft.calls if call.key == command["reason"]]:
        draft.change(call, sent={**call.sent, "if_match": command["version"]})


def win_twice(draft: Draft) -> None:
    found = [one for one in draft.commands("applied", event=True) if one["verb"] == "update"]
    first, second = next(pair for pair in combinations(found, 2) if pair[0]["agent_id"] == pair[1]["agent_id"])
    second["version"] = first["version"]
    for call in [call for call in draft.calls if call.key in (first["reason"], second["reason"])]:
        draft.change(call, sent={**call.sent, "if_match": first["version"] - 1})


def resume_from_working(draft: Draft) -> None:
    next(draft.events("rest"))["verb"] = "resume"


def begin_elsewhere(draft: Draft) -> None:
    next(draft.events("work"))["before"] = "paused"


def go_on_after_the_end(draft: Draft) -> None:
    events = next(events for events in draft.final.events.values() if events[-1]["verb"] == "terminate")
    events.append(events[1] | {"version": len(events) + 1, "before": "terminated"})


def pause_without_hold(draft: Draft) -> None:
    next(draft.events("pause"))["changes"] = {"holds": []}


def refuse_for_nothing(draft: Draft) -> None:
    next(draft.commands("rejected"))["error"] = {"code": "held"}


def apply_by_half(draft: Draft) -> None:
    event = next(event for event in draft.events("work", "update") if "current_task" in event["changes"])
    event["changes"] = event["changes"] | {"current_task": "another"}


def let_process_pause(draft: Draft) -> None:
    event = next(draft.events("pause"))
    command = next(one for one in draft.final.commands if one["id"] == event["command_id"])
    command["actor"] = {"type": "agent", "id": None}


def speak_for_process(draft: Draft) -> None:
    """What a client ordered is told to be a process's doing, which said nothing of the kind."""
    event = next(event for event in draft.events("update") if "current_task" in event["changes"])
    command = next(one for one in draft.final.commands if one["id"] == event["command_id"])
    command["actor"] = {"type": "agent", "id": None}


def rename_in_the_end(draft: Draft) -> None:
    draft.final.agents[0]["name"] = "another"


def find_itself_wrong(draft: Draft) -> None:
    draft.final.violated.append("I1")


def let_key_be_used_again(draft: Draft) -> None:
    call = next(draft.answered("update", 202))
    draft.calls.append(replace(call, op="reuse", key=None))


def bring_twice(draft: Draft) -> None:
    draft.final.feed.append(draft.final.feed[-1])


def bring_never(draft: Draft) -> None:
    draft.final.feed.pop(len(draft.final.feed) // 2)


def stream_never(draft: Draft) -> None:
    draft.final.stream.pop(len(draft.final.stream) // 2)


def bring_late(draft: Draft) -> None:
    draft.final.feed.reverse()


BREAKAGES: dict[Break, str] = {
    lose: "lost",
    leave_queued: "lost",
    add_one: "unexpected",
    accept_refused: "unexpected",
    send_elsewhere: "unexpected",
    double_command: "duplicated",
    double_event: "duplicated",
    match_one_more: "duplicated",
    tell_of_fewer: "bulk",
    take_others: "matching",
    give_up: "dead",
    refuse_applied: "answers",
    keep_cancelled: "answers",
    cancel_unasked: "cancelled",
    apply_cancelled: "replay",
    refuse_for_nothing: "replay",
    apply_by_half: "replay",
    let_process_pause: "replay",
    answer_with_two: "idempotency",
    answer_with_others: "idempotency",
    spawn_twice: "idempotency",
    leave_gap: "versions",
    apply_late: "order",
    match_other_version: "if_match",
    win_twice: "if_match",
    resume_from_working: "chain",
    begin_elsewhere: "chain",
    go_on_after_the_end: "ended",
    pause_without_hold: "holds",
    speak_for_process: "unasked",
    rename_in_the_end: "final",
    find_itself_wrong: "verdict",
    let_key_be_used_again: "reuse",
    bring_twice: "feed",
    bring_never: "feed",
    bring_late: "feed",
    stream_never: "feed",
}
"""Each with the check that must find it."""

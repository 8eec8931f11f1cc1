"""What a wrong system would show to those who look, count or beat: each breaks a right history in one place."""

from dataclasses import replace

from tests.chaos.breakages import Break
from tests.chaos.drafts import Draft, ended
from tests.chaos.history import Call


def tear(draft: Draft) -> None:
    call = next(draft.answered("get"))
    draft.change(call, answer=call.answer | {"current_task": "of the next version"})


def show_the_future(draft: Draft) -> None:
    call = next(draft.answered("get"))
    draft.change(call, answer=call.answer | {"version": 10**6})


def fall_back(draft: Draft) -> None:
    first, second = next(draft.shown())
    draft.calls.append(replace(first, t0=ended(second) + 1, t1=ended(second) + 2))


def forget(draft: Draft) -> None:
    draft.change(next(draft.shown())[1], status=404, answer={})


def drift(draft: Draft) -> None:
    draft.final.agents[0]["tokens_used"] += 1


def miscount_report(draft: Draft) -> None:
    call = next(draft.answered("usage", 202))
    draft.change(call, answer=call.answer | {"accepted": call.answer["accepted"] + 1})


def know_the_first(draft: Draft) -> None:
    call = next(draft.answered("usage", 202))
    for again in [one for one in draft.answered("usage", 202) if one.key == call.key]:
        draft.change(again, answer=call.answer | {"accepted": 0, "duplicates": call.answer["accepted"]})


def drift_project(draft: Draft) -> None:
    draft.final.metrics["total_cost_incurred"] += "1"


def lose_a_model(draft: Draft) -> None:
    draft.final.usage.clear()


def count_too_much(draft: Draft) -> None:
    call = next(draft.answered("get"))
    draft.change(call, answer=call.answer | {"tasks_completed": 10**6})


def count_down(draft: Draft) -> None:
    last = [*draft.answered("get")][-1]
    earlier = next(one for one in draft.answered("get") if one.agent == last.agent and ended(one) < last.t0)
    draft.change(earlier, answer=last.answer)
    draft.change(last, answer=last.answer | {"tokens_used": last.answer["tokens_used"] - 1})


def count_late(draft: Draft) -> None:
    """A report was counted, and somebody is shown the agent without it."""
    call = next(draft.answered("usage"))
    readings = [one for one in draft.answered("get") if one.agent == call.agent and one.t0 > ended(call)]
    for reading in [one for one in draft.calls if one.agent == call.agent and one.op == "agent_metrics"]:
        draft.calls.remove(reading)
    for reading in readings:
        draft.change(reading, answer=reading.answer | {"tasks_completed": 0})


def leave_out(draft: Draft) -> None:
    call = [*draft.answered("list")][-1]
    draft.change(call, answer={"ids": call.answer["ids"][1:]})


def list_twice(draft: Draft) -> None:
    call = [*draft.answered("list")][-1]
    draft.change(call, answer={"ids": [*call.answer["ids"], call.answer["ids"][0]]})


def list_nobody(draft: Draft) -> None:
    call = [*draft.answered("list")][-1]
    draft.change(call, answer={"ids": [*call.answer["ids"], "nobody"]})


def count_nobody(draft: Draft) -> None:
    _recount([*draft.answered("metrics")][-1], draft, +1)


def count_too_few(draft: Draft) -> None:
    _recount([*draft.answered("metrics")][-1], draft, -1)


def _recount(call: Call, draft: Draft, more: int) -> None:
    by_status = call.answer["by_status"] | {"waiting": call.answer["by_status"]["waiting"] + more}
    draft.change(call, answer=call.answer | {"total_instances": sum(by_status.values()), "by_status": by_status})


def add_up_wrongly(draft: Draft) -> None:
    call = next(draft.answered("metrics"))
    draft.change(call, answer=call.answer | {"active_instances": 10**6})


def earn_back(draft: Draft) -> None:
    call = [*draft.answered("metrics")][-1]
    draft.change(call, answer=call.answer | {"total_tokens_used": 0})


def miscount_in_the_end(draft: Draft) -> None:
    draft.final.metrics["by_status"]["paused"] += 1


def hear_the_fenced(draft: Draft) -> None:
    grants = {call.agent: call for call in draft.answered("lease", 201) if call.answer["epoch"] > 1}
    for beat in draft.answered("beat", 409):
        grant = grants.get(beat.agent)
        if grant and beat.t0 > ended(grant) and beat.sent["body"]["epoch"] < grant.answer["epoch"]:
            draft.change(beat, status=200, answer={"directive": "continue", "version": beat.answer["version"]})
            return


def hear_the_stopped(draft: Draft) -> None:
    """An immediate pause was accepted, and the process is heard as if it were not."""
    grant, stop = _stopped(draft)
    beat = Call(0, "beat", ended(stop) + 1, grant.agent, None, {"body": {"epoch": grant.answer["epoch"]}})
    draft.calls.append(replace(beat, t1=beat.t0 + 1, status=200, answer={"directive": "pause", "version": 1}))


def _stopped(draft: Draft) -> tuple[Call, Call]:
    stops = [call for call in draft.calls if call.outcome == "ok" and _body(call).get("mode") == "immediate"]
    return next(
        (grant, stop)
        for stop in stops
        for grant in draft.answered("lease", 201)
        if grant.agent == stop.agent and ended(grant) < min(one.t0 for one in draft.calls if one.key == stop.key)
    )


def _body(call: Call) -> dict[str, object]:
    return dict(call.sent.get("body") or {})


def grant_again(draft: Draft) -> None:
    call = next(draft.answered("lease", 201))
    draft.calls.append(replace(call, t0=ended(call) + 1, t1=ended(call) + 2))


def grant_to_two(draft: Draft) -> None:
    call = max(draft.answered("lease", 201), key=lambda call: call.answer["epoch"])
    other = {"holder": "another", "ttl": 5}
    answer = call.answer | {"epoch": call.answer["epoch"] + 1}
    draft.calls = [one for one in draft.calls if one.op != "release"]
    draft.calls.append(replace(call, sent={"body": other}, t0=ended(call) + 1, t1=ended(call) + 2, answer=answer))


def tell_the_paused(draft: Draft) -> None:
    beat = next(one for one in draft.answered("beat") if one.answer["directive"] == "pause")
    paused = next(event for event in draft.final.events[beat.agent or ""] if event["after"] == "paused")
    draft.change(beat, answer={"directive": "continue", "version": paused["version"]})


def tell_before_the_stop(draft: Draft) -> None:
    """A pause was accepted and is not applied yet; the process is told to go on."""
    applied = {command["reason"]: command for command in draft.commands("applied", event=True)}
    pauses = (call for call in draft.answered("pause", 202) if call.key in applied)
    pause = next(call for call in pauses if _before(draft, applied[call.key or ""]) in ("idle", "working"))
    version = applied[pause.key or ""]["version"] - 1
    beat = Call(0, "beat", ended(pause) + 1, pause.agent, None, {"body": {"epoch": 10**6}})
    draft.calls.append(replace(beat, t1=beat.t0 + 1, status=200, answer={"directive": "continue", "version": version}))


def _before(draft: Draft, command: dict[str, object]) -> object:
    return next(event["before"] for event in draft.events("pause") if event["command_id"] == command["id"])


def lease_the_ended(draft: Draft) -> None:
    ends = {command["reason"] for command in draft.commands("applied", event=True) if command["verb"] == "terminate"}
    done = next(call for call in draft.calls if call.key in ends and call.outcome == "ok")
    last = max(call.answer["epoch"] for call in draft.answered("lease", 201)) + 10
    lease = Call(0, "lease", ended(done) + 1, done.agent, None, {"body": {"holder": "me", "ttl": 5}})
    draft.calls.append(replace(lease, t1=lease.t0 + 1, status=201, answer={"epoch": last, "directive": "continue"}))


def answer_fewer(draft: Draft) -> None:
    call = next(draft.answered("beats"))
    draft.change(call, answer={"data": call.answer["data"][1:]})


def move_on(draft: Draft) -> None:
    next(agent for agent in draft.final.agents if agent["status"] == "paused")["quiesced_by"] = None


def let_in(draft: Draft) -> None:
    draft.change(next(draft.answered("stranger", 404)), status=200, answer={})


def forbid(draft: Draft) -> None:
    draft.change(next(draft.answered("stranger", 404)), status=403, answer={})


def break_down(draft: Draft) -> None:
    draft.change(next(draft.answered("metrics")), status=500, answer={})


MISREADINGS: dict[Break, str] = {
    tear: "reads",
    show_the_future: "reads",
    fall_back: "falls",
    forget: "falls",
    drift: "books",
    miscount_report: "books",
    know_the_first: "entries",
    drift_project: "books",
    lose_a_model: "books",
    count_too_much: "counters",
    count_down: "counters",
    count_late: "counters",
    leave_out: "lists",
    list_twice: "lists",
    list_nobody: "lists",
    count_nobody: "metrics",
    count_too_few: "metrics",
    add_up_wrongly: "metrics",
    earn_back: "metrics",
    miscount_in_the_end: "metrics",
    hear_the_fenced: "leases",
    hear_the_stopped: "leases",
    grant_again: "leases",
    grant_to_two: "leases",
    tell_the_paused: "leases",
    tell_before_the_stop: "leases",
    lease_the_ended: "leases",
    answer_fewer: "beats",
    move_on: "still",
    let_in: "tenancy",
    forbid: "tenancy",
    break_down: "broken",
}
"""Each with the check that must find it."""

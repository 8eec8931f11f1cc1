"""What was accepted is there in the end, once, closed, and as it was answered; and nothing else is."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.chaos.evidence import ORDERS, Evidence, Request, Sent, Violation, said
from tests.chaos.history import Call

POISONED = "poisoned"
"""The fault of one command, its target, that kills whoever decides about it."""


def lost(evidence: Evidence) -> Iterator[Violation]:
    """A command that was answered, and is not there; or is not closed, now that all is quiet."""
    for request in evidence.requests.values():
        if request.taken:
            for key in _promised(request):
                if key not in evidence.of_key:
                    agent = request.calls[0].agent
                    yield Violation("lost", f"{key} was accepted and is not there", agent, tuple(request.calls))
    for sent in evidence.sent:
        if sent.command["state"] == "queued":
            yield _of(sent, "lost", "is still queued")


def unexpected(evidence: Evidence) -> Iterator[Violation]:
    """A command that nobody sent, that was refused at the door, or that is another one than was sent."""
    for sent in evidence.sent:
        if sent.command["actor"]["type"] != "user":
            continue
        if sent.request is None or sent.order is None:
            yield _of(sent, "unexpected", "was sent by nobody")
        elif sent.request.refused:
            yield _of(sent, "unexpected", "is there, though every try was refused")
        elif not _as_sent(sent, sent.request, sent.order.verb):
            yield _of(sent, "unexpected", "is not what was sent")
    yield from _refused_items(evidence)


def _as_sent(sent: Sent, request: Request, verb: str) -> bool:
    command = sent.command
    agent = request.calls[0].agent
    if request.op == "bulk":
        agent = request.calls[0].sent["body"]["commands"][int(command["reason"].partition("#")[2])].get("agent_id")
    return command["verb"] == verb and agent in (None, command["agent_id"])


def _refused_items(evidence: Evidence) -> Iterator[Violation]:
    for request, call in answered(evidence, "bulk"):
        for item in call.answer["items"]:
            key = f"{request.key}#{item['index']}"
            if item["command_id"] is None and key in evidence.of_key:
                yield Violation("unexpected", f"{key} was refused and is there", item["agent_id"], (call,))


def duplicated(evidence: Evidence) -> Iterator[Violation]:
    """Two commands of one request, two events of one command, or other than as many as a filter was said to match."""
    for key, found in evidence.of_key.items():
        of_filter = found[0].request is not None and found[0].request.op == "by_filter"
        named = len({sent.command["agent_id"] for sent in found}) if of_filter else 1
        if len(found) > named:
            yield _of(found[0], "duplicated", f"is one of {len(found)} of {key}")
    for request, call in answered(evidence, "by_filter"):
        number = len(evidence.of_key.get(request.key, ()))
        if number != call.answer["count"]:
            sentence = f"{request.key} matched {call.answer['count']} agents, and made {number} commands"
            yield Violation("duplicated", sentence, None, (call,))
    events = (event["command_id"] for events in evidence.history.final.events.values() for event in events)
    for command, number in Counter(events).items():
        if number > 1 and command in evidence.of_id:
            yield _of(evidence.of_id[command], "duplicated", f"has {number} events")


def dead(evidence: Evidence) -> Iterator[Violation]:
    """A command that was given up, and was no poison; or one that was poison, and came through."""
    poison = poisons(evidence)
    for sent in evidence.sent:
        state = sent.command["state"]
        if sent.command["id"] in poison and state not in ("dead", "cancelled"):
            yield _of(sent, "dead", f"was poison, and is {state}")
        elif state == "dead" and sent.command["id"] not in poison:
            yield _of(sent, "dead", "was given up")


def poisons(evidence: Evidence) -> set[str]:
    """The ids of the commands that were poison."""
    return {fault.target.rpartition(" ")[2] for fault in evidence.history.faults if fault.kind == POISONED}


def answers(evidence: Evidence) -> Iterator[Violation]:
    """An answer that said how a command ended, where it ended otherwise."""
    for request in evidence.requests.values():
        found = evidence.of_key.get(request.key, ())
        if request.op in ORDERS and len(found) == 1:
            for call in request.calls:
                wrong = _contradicts(call, found[0].command)
                if wrong:
                    yield Violation("answers", f"{request.key} {wrong}", found[0].command["agent_id"], (call,))
        if request.op == "cancel" and request.taken:
            yield from _not_cancelled(request, evidence)


def _contradicts(call: Call, command: Mapping[str, Any]) -> str | None:
    state, answer = command["state"], said(call)
    if call.status in (200, 201) and state != "applied":
        return f"was answered as applied and is {state}"
    if call.status == 202 and answer.get("state", "queued") != "queued":
        told = (answer["state"], answer["version"])
        return None if told == (state, command["version"]) else f"was answered as {told[0]} and is {state}"
    if call.outcome == "refused" and "command_id" in answer and state not in ("rejected", "cancelled"):
        return f"was answered as refused and is {state}"
    return None


def _not_cancelled(request: Request, evidence: Evidence) -> Iterator[Violation]:
    sent = evidence.of_id.get(request.calls[0].sent["command"])
    if sent is not None and sent.command["state"] != "cancelled":
        yield Violation(
            "answers",
            f"a cancelled command is {sent.command['state']}",
            sent.command["agent_id"],
            (*sent.calls, *request.calls),
        )


def cancelled(evidence: Evidence) -> Iterator[Violation]:
    """A command that is cancelled, and nobody can have done it."""
    tried = {
        request.calls[0].sent["command"]
        for request in evidence.requests.values()
        if request.op == "cancel" and not request.refused
    }
    for sent in evidence.sent:
        if sent.command["state"] == "cancelled" and sent.command["id"] not in tried:
            yield _of(sent, "cancelled", "was cancelled by nobody")


def idempotency(evidence: Evidence) -> Iterator[Violation]:
    """One key that was answered with two commands, agents or batches, or with a command of another key; or one that was
    answered well, and refused to who asked for the same again."""
    for request in evidence.requests.values():
        calls = request.calls
        for call in calls if len(calls) > 1 else ():
            if call.t0 > request.replied and call.outcome == "refused" and "command_id" not in said(call):
                sentence = f"{request.key} was answered well, and later refused with {call.status}"
                yield Violation("idempotency", sentence, calls[0].agent, tuple(calls))
        for found in zip(*map(_names, calls), strict=True) if len(calls) > 1 else ():
            if len(set(found) - {None}) > 1:
                sentence = f"{request.key} was answered with {', '.join(sorted(set(map(str, found)) - {'None'}))}"
                yield Violation("idempotency", sentence, calls[0].agent, tuple(calls))
        for command in {_command(call) for call in calls} if request.op in ORDERS else ():
            sent = evidence.of_id.get(command or "")
            if sent is not None and sent.request is not request:
                sentence = f"{request.key} was answered with the command of {sent.command['reason']}"
                yield Violation("idempotency", sentence, sent.command["agent_id"], (*sent.calls, *calls))


def recovered(evidence: Evidence) -> int:
    """How many requests had no answer at first, or never had one, and are there."""
    return sum(
        any(call.outcome == "unknown" for call in request.calls) and _happened(request, evidence)
        for request in evidence.requests.values()
    )


def _happened(request: Request, evidence: Evidence) -> bool:
    return request.key in evidence.of_key or f"{request.key}#0" in evidence.of_key


def _promised(request: Request) -> Iterable[str]:
    """The reasons of the commands that a request is known to have made."""
    if request.op in ORDERS:
        return [request.key]
    if request.op == "bulk":
        items = [item for call in request.calls if call.outcome == "ok" for item in call.answer["items"]]
        return {f"{request.key}#{item['index']}" for item in items if item["command_id"] is not None}
    return []


def answered(evidence: Evidence, op: str) -> Iterator[tuple[Request, Call]]:
    """The requests of an operation that were answered well, each with its first such answer."""
    for request in evidence.requests.values():
        if request.op == op:
            call = next((call for call in request.calls if call.outcome == "ok"), None)
            if call is not None:
                yield request, call


def _command(call: Call) -> str | None:
    """The command that an answer names."""
    answer = said(call)
    made = call.op in (*ORDERS, "cancel") and "verb" in answer
    return answer["id"] if made else answer.get("command_id")


def _names(call: Call) -> tuple[str | None, str | None, str | None]:
    """What must be the same in every answer to one key: the command, a spawn's agent, the batch or what was counted."""
    answer = said(call)
    agent = answer.get("agent_id", answer.get("id")) if call.op == "spawn" and call.outcome == "ok" else None
    whole = None
    if call.outcome == "ok" and call.op in ("bulk", "by_filter", "usage"):
        whole = str(sorted(answer.items()))
    return _command(call), agent, whole


def _of(sent: Sent, check: str, what: str) -> Violation:
    command = sent.command
    sentence = f"command {command['id']} ({command['verb']}, {command['reason']}) {what}"
    return Violation(check, sentence, command["agent_id"], sent.calls)

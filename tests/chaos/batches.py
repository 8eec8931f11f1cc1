"""Commands and beats of many agents at once: each item of a list is told of as it ended, and a filter takes whom it
names."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import accumulate
from typing import Any

from tests.chaos.apart import STATUSES
from tests.chaos.commands import answered
from tests.chaos.contract import Life
from tests.chaos.evidence import NEVER, Evidence, Request, Violation
from tests.chaos.reads import Look, looks

REFUSALS = {"spawn": frozenset({"not_found", "validation_error", "conflict"})}
OTHER_REFUSALS = frozenset({"not_found", "validation_error"})
"""Why an item of a list can be refused at the door, by its verb."""

FILTERS = frozenset({"status", "q"})
"""What a filter can say that is known of an agent at each version. Of one that says more nothing is judged."""


def bulk(evidence: Evidence) -> Iterator[Violation]:
    """A list whose answer does not tell of each item once, in order; does not add up; names other commands or agents
    than there are; or refuses what cannot be refused."""
    for request, call in answered(evidence, "bulk"):
        items, wanted = call.answer["items"], call.sent["body"]["commands"]
        if [item["index"] for item in items] != [*range(len(wanted))]:
            yield Violation(
                "bulk", f"{request.key} had {len(wanted)} items, and was told of {len(items)}", None, (call,)
            )
            continue
        accepted = sum(item["command_id"] is not None for item in items)
        told = (call.answer["accepted"], call.answer["refused"])
        if told != (accepted, len(items) - accepted):
            sentence = f"{request.key} was told of {told} items, and {accepted} of {len(items)} were accepted"
            yield Violation("bulk", sentence, None, (call,))
        for item, order in zip(items, wanted, strict=True):
            wrong = _wrong_item(item, order, request, evidence)
            if wrong:
                sentence = f"{request.key}#{item['index']} {wrong}"
                yield Violation("bulk", sentence, item["agent_id"], (call,))


def _wrong_item(item: Mapping[str, Any], order: Mapping[str, Any], request: Request, evidence: Evidence) -> str | None:
    if (item["command_id"] is None) == (item["error"] is None):
        return "was told to be accepted and refused, or neither"
    if item["error"] is not None:
        return _wrong_refusal(item["error"]["code"], order, request, evidence)
    if item["agent_id"] != order.get("agent_id", item["agent_id"]):
        return f"was for {order['agent_id']}, and is told to be for another"
    made = {
        (sent.command["id"], sent.command["agent_id"]) for sent in evidence.of_key[f"{request.key}#{item['index']}"]
    }
    told = (item["command_id"], item["agent_id"])
    return f"was told to be {told}, and is {made}" if made and told not in made else None


def _wrong_refusal(code: str, order: Mapping[str, Any], request: Request, evidence: Evidence) -> str | None:
    if code not in REFUSALS.get(order["verb"], OTHER_REFUSALS):
        return f"was refused as {code}"
    known = evidence.known.get(order.get("agent_id") or "", ())
    born = any(one.version > 0 and one.t1 < request.first for one in known)
    return "was refused as not_found, and its agent was born" if code == "not_found" and born else None


def beats(evidence: Evidence) -> Iterator[Violation]:
    """Many beats whose answer does not tell of each of them once, in order; or of one that was heard and refused, or
    neither, or refused for what cannot be wrong with it."""
    for call in evidence.history.calls:
        if call.op != "beats" or call.outcome != "ok":
            continue
        asked = [beat["agent_id"] for beat in call.sent["body"]["beats"]]
        if [item["agent_id"] for item in call.answer["data"]] != asked:
            sentence = f"{len(asked)} agents beat, and {len(call.answer['data'])} were answered, or others"
            yield Violation("beats", sentence, None, (call,))
            continue
        for item in call.answer["data"]:
            told, error = item.get("told"), item.get("error")
            if (told is None) == (error is None) or (error is not None and error["code"] not in STATUSES):
                yield Violation("beats", f"a beat was told {told}, and refused as {error}", item["agent_id"], (call,))


class Reach:
    """Which versions one agent can have had, by the time: as many as were known, and no more than had been sent for or
    were shown to somebody who looked later."""

    def __init__(self, agent: str, evidence: Evidence, seen: Iterable[Look]) -> None:
        events = evidence.history.final.events[agent]
        sent = [evidence.of_id[event["command_id"]].first for event in events if event["command_id"] in evidence.of_id]
        known = evidence.known.get(agent, ())
        self._sent = [*accumulate(sent, max)] if len(sent) == len(events) else [0] * len(events)
        self._known = [one.t1 for one in known]
        self._least = [0, *accumulate((one.version for one in known), max)]
        later = [*seen]
        self._looked = [look.call.t0 for look in later]
        self._most = [*accumulate((look.version for look in reversed(later)), min, initial=len(events))][::-1]

    def least(self, moment: int) -> int:
        """What it had at least."""
        return self._least[bisect_left(self._known, moment)]

    def between(self, least: int, end: int) -> range:
        """From that version to what it had at most at a moment."""
        most = min(bisect_left(self._sent, end), self._most[bisect_right(self._looked, end)])
        return range(least, max(least, most) + 1)


def matching(evidence: Evidence) -> Iterator[Violation]:
    """An agent that a filter took although it matched at no version that it can have had meanwhile; or left out, and it
    matched at all of them."""
    seen = looks(evidence)
    reach = {agent: Reach(agent, evidence, seen.get(agent, ())) for agent in evidence.lives}

    @cache
    def candidates(status: str | None, prefix: str) -> dict[str, list[bool]]:
        matches = {agent: [_matches(life, status, prefix) for life in lives] for agent, lives in evidence.lives.items()}
        return {agent: found for agent, found in matches.items() if any(found)}

    for request in evidence.requests.values():
        body = request.calls[0].sent.get("body") or {}
        if request.op != "by_filter" or body.get("dry_run") or not body["filter"].keys() <= FILTERS:
            continue
        found = candidates(body["filter"].get("status"), body["filter"].get("q") or "")
        for agent, sentence in _mistaken(request, evidence, found, reach):
            yield Violation("matching", f"{request.key} {sentence}", agent, tuple(request.calls))


def _mistaken(
    request: Request, evidence: Evidence, candidates: Mapping[str, list[bool]], reach: Mapping[str, Reach]
) -> Iterator[tuple[str, str]]:
    end = min((call.t1 or NEVER for call in request.calls if call.outcome == "ok"), default=NEVER)
    taken = {sent.command["agent_id"] for sent in evidence.of_key.get(request.key, ())}
    for agent in taken & reach.keys():
        matches, least = candidates.get(agent, ()), reach[agent].least(request.first)
        if any(matches[least : least + 1]):
            continue
        versions = reach[agent].between(least, end)
        if not any(matches[versions.start : versions.stop]):
            yield agent, f"took an agent that never matched at versions {versions.start} to {versions.stop - 1}"
    for agent in candidates.keys() - taken if end < NEVER else ():
        least = reach[agent].least(request.first)
        if not any(candidates[agent][least : least + 1]):
            continue
        versions = reach[agent].between(least, end)
        if all(candidates[agent][versions.start : versions.stop]):
            yield agent, f"left out an agent that matched at versions {versions.start} to {versions.stop - 1}"


def _matches(life: Life, status: str | None, prefix: str) -> bool:
    living = life.status not in (None, "terminated")
    return living and status in (None, life.status) and str(life.fields.get("name")).startswith(prefix)

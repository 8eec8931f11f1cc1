"""The fleet as a whole: its list and its metrics, while all is moving and at rest."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from operator import lt
from typing import Any

from tests.chaos.books import totals
from tests.chaos.contract import STATUSES
from tests.chaos.evidence import NEVER, Evidence, Violation
from tests.chaos.history import Call

Birth = tuple[int, str]
"""Since when an agent is known to be born, and its id."""


def lists(evidence: Evidence) -> Iterator[Violation]:
    """A walk over the list that was shown an agent twice, one that there is not, or not one that was born, for all to
    see, before the walk began. (One that was born during the walk may be there or not.)"""
    agents = [agent["id"] for agent in evidence.history.final.agents]
    final, born, known = set(agents), deque(births(evidence)), set[str]()
    if len(final) < len(agents):
        yield Violation("lists", "an agent is listed twice in the end", Counter(agents).most_common(1)[0][0])
    for call in evidence.history.calls:
        if call.op != "list" or call.outcome != "ok":
            continue
        while born and born[0][0] < call.t0:
            known.add(born.popleft()[1])
        for agent, sentence in _wrong_list(call.answer["ids"], final, known):
            first = evidence.known[agent][:1] if agent in evidence.known else []
            yield Violation("lists", sentence, agent, (*(one.call for one in first), call))


def _wrong_list(ids: list[str], final: set[str], known: set[str]) -> Iterator[tuple[str, str]]:
    listed = set(ids)
    if len(listed) < len(ids):
        yield Counter(ids).most_common(1)[0][0], "an agent was listed twice"
    for agent in sorted(listed - final):
        yield agent, "an agent was listed that there is not in the end"
    for agent in sorted(known - listed):
        yield agent, "an agent that was born is missing in a list"


def births(evidence: Evidence) -> list[Birth]:
    """Of every agent of whose birth somebody was told, in the order of time."""
    first = ((next((one.t1 for one in known if one.version), NEVER), id_) for id_, known in evidence.known.items())
    return sorted(birth for birth in first if birth[0] < NEVER)


def feed(evidence: Evidence) -> Iterator[Violation]:
    """An event that the feed brought twice, against its agent's order, or never; or one that there is not."""
    final = evidence.history.final
    for by, brought in (("page", final.feed), ("stream", final.stream)):
        for agent, sentence in _misled(brought, final.events):
            yield Violation("feed", f"the feed by {by} brought {sentence}", agent)


def _misled(brought: Iterable[Sequence[Any]], events: Mapping[str, Sized]) -> Iterator[tuple[str, str]]:
    reached = dict[str, int]()
    for agent, version in brought:
        before = reached.get(agent, 0)
        if version != before + 1:
            yield agent, f"version {version} after version {before}"
        reached[agent] = version
    for agent in reached.keys() | events.keys():
        there, count = len(events.get(agent, ())), reached.get(agent, 0)
        if there != count:
            yield agent, f"{count} versions, and there are {there}"


def metrics(evidence: Evidence) -> Iterator[Violation]:
    """Metrics that do not add up; that count fewer agents than were known to be born, or more than were spawned; or in
    which something fell that only grows. In the end: other ones than the agents give."""
    born = [birth[0] for birth in births(evidence)]
    spawned = sorted(sent.first for sent in evidence.sent if sent.command["verb"] == "spawn" and sent.event)
    calls = [call for call in evidence.history.calls if call.op == "metrics" and call.outcome == "ok"]
    for call in calls:
        least, most = bisect_left(born, call.t0), bisect_left(spawned, call.t1 or NEVER)
        if not least <= call.answer["total_instances"] <= most:
            sentence = f"{call.answer['total_instances']} agents were counted, of {least} to {most}"
            yield Violation("metrics", sentence, None, (call,))
    for call in evidence.history.calls:
        if call.op in ("metrics", "agent_metrics") and call.outcome == "ok" and not _adds_up(call):
            yield Violation("metrics", f"they do not add up: {call.answer}", call.agent, (call,))
    yield from _fallen(calls)
    yield from _final(evidence)


def _adds_up(call: Call) -> bool:
    found, by_status = call.answer, call.answer["by_status"]
    alone = call.op == "metrics" or found["total_instances"] == 1
    told = (found["total_instances"], found["active_instances"], found["idle_instances"])
    return alone and told == (sum(by_status.values()), by_status["working"], by_status["idle"])


def _fallen(calls: list[Call]) -> Iterator[Violation]:
    """The number of agents, that of the ended ones, and the counters only grow."""
    answered, at = sorted(calls, key=lambda call: call.t1 or NEVER), 0
    highest: tuple[Any, ...] = (0,) * 5
    for call in calls:
        while (answered[at].t1 or NEVER) < call.t0:
            highest = tuple(map(max, highest, _growing(answered[at])))
            at += 1
        if any(map(lt, _growing(call), highest)):
            yield Violation("metrics", f"they fell from {highest} to {_growing(call)}", None, (call,))


def _growing(call: Call) -> tuple[Any, ...]:
    return (call.answer["total_instances"], call.answer["by_status"]["terminated"], *totals(call.answer))


def _final(evidence: Evidence) -> Iterator[Violation]:
    """The counters are the books' matter."""
    final = evidence.history.final
    found = Counter(agent["status"] for agent in final.agents)
    expected = {
        "by_status": {status: found[status] for status in STATUSES},
        "total_instances": len(final.agents),
        "active_instances": found["working"],
        "idle_instances": found["idle"],
    }
    for name, value in expected.items():
        if final.metrics[name] != value:
            yield Violation("metrics", f"in the end {name} is {final.metrics[name]}, and the agents give {value}")

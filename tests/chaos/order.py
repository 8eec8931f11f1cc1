"""In which order commands were applied: versions without a gap, and never against the order of time."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from tests.chaos.evidence import Evidence, Known, Sent, Violation, dense


def versions(evidence: Evidence) -> Iterator[Violation]:
    """Events that are not 1 to n, or an n that is not the agent's version; or an event of a command that names another
    version, is another agent's, or is not there."""
    final = evidence.history.final
    shown = {agent["id"]: agent["version"] for agent in final.agents}
    for agent, events in final.events.items():
        found = [event["version"] for event in events]
        if not dense(events) or shown.get(agent) != len(events):
            yield Violation("versions", f"version {shown.get(agent)} has the events {_short(found)}", agent)
        for event in events:
            sent = evidence.of_id.get(event["command_id"])
            told = sent and (sent.command["agent_id"], sent.command["version"])
            if told != (agent, event["version"]):
                sentence = f"the event of version {event['version']} is that of a command of {told}"
                yield Violation("versions", sentence, agent, sent.calls if sent else ())


def order(evidence: Evidence) -> Iterator[Violation]:
    """A command that was answered before another one was sent, and applied after it; or one that was sent after its
    agent was known to have reached a version, and came to it or beneath it.

    A command is refused, or changes nothing, at some version; one that has an event makes the next one. So whatever
    came before an event has a lower version than it, and whatever came before anything else has no higher one. And
    what was known of an agent before a command was sent had come before it.
    """
    for agent, found in evidence.of_agent.items():
        closed = sorted((sent for sent in found if sent.command["version"] is not None), key=attrgetter("first"))
        yield from _after_replies(agent, closed)
        yield from _after_looks(agent, closed, evidence.known.get(agent, ()))


def _after_replies(agent: str, closed: Iterable[Sent]) -> Iterator[Violation]:
    replied = sorted(closed, key=attrgetter("replied"))
    before, latest = 0, None
    for sent in closed:
        while before < len(replied) and replied[before].replied < sent.first:
            if latest is None or replied[before].command["version"] >= latest.command["version"]:
                latest = replied[before]
            before += 1
        if latest is not None and latest.command["version"] > _highest_before(sent):
            yield _against_time(agent, latest, sent)


def _after_looks(agent: str, closed: Iterable[Sent], known: Sequence[Known]) -> Iterator[Violation]:
    at, highest = 0, None
    for sent in closed:
        while at < len(known) and known[at].t1 < sent.first:
            if highest is None or known[at].version > highest.version:
                highest = known[at]
            at += 1
        if highest is not None and highest.version > _highest_before(sent):
            sentence = (
                f"version {highest.version} was known before {sent.command['reason']} was sent, "
                f"and that came at version {sent.command['version']}"
            )
            yield Violation("order", sentence, agent, (highest.call, *sent.calls))


def _highest_before(sent: Sent) -> int:
    """The version that its agent had when it came."""
    return int(sent.command["version"]) - (sent.event is not None)


def _against_time(agent: str, first: Sent, second: Sent) -> Violation:
    sentence = (
        f"{first.command['reason']} was accepted before {second.command['reason']} was sent, "
        f"and came at version {first.command['version']}, the other one at {second.command['version']}"
    )
    return Violation("order", sentence, agent, (*first.calls, *second.calls))


def if_match(evidence: Evidence) -> Iterator[Violation]:
    """A command that was meant for one version and applied at another; or two that won the same one."""
    winners: dict[tuple[str, int], list[Sent]] = defaultdict(list)
    for sent in evidence.sent:
        if sent.order is None or sent.order.if_match is None or sent.command["state"] != "applied":
            continue
        agent, wanted = sent.command["agent_id"], sent.order.if_match
        if sent.event is not None:
            winners[agent, wanted].append(sent)
        if sent.command["version"] != wanted + (sent.event is not None):
            sentence = f"{sent.command['reason']} was for version {wanted} and came to {sent.command['version']}"
            yield Violation("if_match", sentence, agent, sent.calls)
    for (agent, wanted), won in winners.items():
        if len(won) > 1:
            sentence = f"version {wanted} was won {len(won)} times"
            yield Violation("if_match", sentence, agent, tuple(call for sent in won for call in sent.calls))


def _short(versions: list[int]) -> str:
    """Where the first gap is; or the last version where there is none."""
    at = next((index for index, version in enumerate(versions) if version != index + 1), len(versions))
    return f"{versions[max(0, at - 1) : at + 2]} after {at} right ones" if at < len(versions) else f"1 to {at}"

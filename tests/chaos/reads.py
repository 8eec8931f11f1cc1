"""Whoever looks sees an agent as it was at one version, and never at an older one than somebody has seen before."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from tests.chaos.evidence import Evidence, Violation, said, shown
from tests.chaos.history import Call
from tests.chaos.replay import differs


class Look(NamedTuple):
    """Which version a call was shown; 0 where it was told that there is no such agent."""

    version: int
    call: Call


def reads(evidence: Evidence) -> Iterator[Violation]:
    """An agent that was shown as it never was at that version; or at one that it never had."""
    for call in evidence.history.calls:
        agent = shown(call)
        if agent is None:
            continue
        lives = evidence.lives.get(agent["id"])
        if lives is None:
            if agent["id"] not in evidence.history.final.events:
                yield Violation("reads", "an agent was shown that there is not in the end", agent["id"], (call,))
        elif not 0 < agent["version"] < len(lives):
            sentence = f"version {agent['version']} was shown, of {len(lives) - 1}"
            yield Violation("reads", sentence, agent["id"], (call,))
        elif wrong := differs(agent, lives[agent["version"]]):
            yield Violation("reads", f"at version {agent['version']} {wrong}", agent["id"], (call,))


def falls(evidence: Evidence) -> Iterator[Violation]:
    """A version that was shown, and is lower than one that was known before the call began. (Calls that overlap may
    see either.)"""
    for agent, seen in looks(evidence).items():
        known, at = evidence.known.get(agent, []), 0
        highest = None
        for look in seen:
            while at < len(known) and known[at].t1 < look.call.t0:
                if highest is None or known[at].version > highest.version:
                    highest = known[at]
                at += 1
            if highest is not None and look.version < highest.version:
                sentence = f"version {look.version} was shown after version {highest.version}"
                yield Violation("falls", sentence, agent, (highest.call, look.call))


def looks(evidence: Evidence) -> dict[str, list[Look]]:
    """By agent, in the order in which they began."""
    found: dict[str, list[Look]] = defaultdict(list)
    for call in evidence.history.calls:
        agent = shown(call)
        if agent is not None:
            found[agent["id"]].append(Look(agent["version"], call))
        elif call.op == "found":
            for id_, version in said(call).get("seen", {}).items():
                found[id_].append(Look(version, call))
        elif call.agent is None:
            continue
        elif call.op == "beat" and isinstance(said(call).get("version"), int):
            found[call.agent].append(Look(call.answer["version"], call))
        elif call.op in ("get", "agent_metrics") and call.status == 404:
            found[call.agent].append(Look(0, call))
    return found

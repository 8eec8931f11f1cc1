"""Usage is counted once, to the last digit: in the end, and never less or more than can be on the way to it."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from tests.chaos.evidence import NEVER, Evidence, Violation, counted, said, shown
from tests.chaos.history import Call


class Sums(NamedTuple):
    """Tasks, tokens and cost."""

    tasks: int
    tokens: int
    cost: Decimal

    def plus(self, other: "Sums") -> "Sums":
        """Both together."""
        return Sums(self.tasks + other.tasks, self.tokens + other.tokens, self.cost + other.cost)

    def minus(self, other: "Sums") -> "Sums":
        """What is left."""
        return Sums(self.tasks - other.tasks, self.tokens - other.tokens, self.cost - other.cost)

    def covers(self, other: "Sums") -> bool:
        """Whether nothing of the other is more."""
        return self.tasks >= other.tasks and self.tokens >= other.tokens and self.cost >= other.cost


NOTHING = Sums(0, 0, Decimal(0))

MOST_SUMS = 4096
"""Of what may or may not have been counted, so many sums are tried; with more only the bounds are judged."""


@dataclass(slots=True)
class Report:
    """One entry of usage: it can be counted from `sent` on, is in the ledger for sure if it was ever answered, and was
    known to be counted at `counted`."""

    sums: Sums
    sent: int
    sure: bool = False
    counted: int = NEVER


Ledger = dict[str, dict[str, Report]]
"""All entries by agent and report id; in this workload the same id always has the same content."""


class Reading(NamedTuple):
    """An agent's counters as a call was shown them."""

    sums: Sums
    call: Call


def ledger(evidence: Evidence) -> Ledger:
    """What was reported, by usage and by beats. Where a beat's token is refused nobody knows whether it was."""
    found: Ledger = defaultdict(dict)
    for call in evidence.history.calls:
        entries = (call.sent.get("body") or {}).get("entries") if call.op in ("usage", "beat") else None
        if not entries or call.agent is None or (call.op == "usage" and call.outcome == "refused"):
            continue
        for entry in entries:
            report = found[call.agent].setdefault(entry["report_id"], Report(_used(entry), call.t0))
            report.sure |= counted(call)
            if call.op == "usage" and call.status == 200:
                report.counted = min(report.counted, call.t1 or NEVER)
    return found


def books(evidence: Evidence) -> Iterator[Violation]:
    """Counters that are not the sum of what was reported, where what nobody knows of may be in them or not. A report
    that was answered with other numbers than it can have. And counters that were shown lower than somebody had seen
    them before, or than what was known to be counted; or higher than all that had been sent. In the end, usage by model
    that does not come to the project's."""
    reported = ledger(evidence)
    yield from _balance(evidence, reported)
    for call in evidence.history.calls:
        if call.op == "usage" and call.outcome == "ok" and _miscounts(call):
            yield Violation("books", f"a report was answered with {call.answer}", call.agent, (call,))
    for agent, readings in _readings(evidence).items():
        reports = [*reported.get(agent, {}).values()]
        yield from _too_little(agent, readings, reports)
        yield from _too_much(agent, readings, reports)


def _balance(evidence: Evidence, reported: Ledger) -> Iterator[Violation]:
    shown_sums, hidden = NOTHING, dict(reported)
    for agent in evidence.history.final.agents:
        counters = _counters(agent)
        shown_sums = shown_sums.plus(counters)
        wrong = _wrong(counters, hidden.pop(agent["id"], {}).values())
        if wrong:
            yield Violation("books", wrong, agent["id"])
    by_model = _total(map(_of_group, evidence.history.final.usage))
    if by_model != totals(evidence.history.final.metrics):
        yield Violation("books", f"the usage by model is {_told(by_model)}, and the project's counters are others")
    # What was used in the name of agents that were never born is counted, too, and shown by the project alone.
    unborn = [report for reports in hidden.values() for report in reports.values()]
    wrong = _wrong(totals(evidence.history.final.metrics).minus(shown_sums), unborn)
    if wrong:
        yield Violation("books", f"the project, beside its agents: {wrong}")


def _miscounts(call: Call) -> bool:
    answer = said(call)
    told = (answer["accepted"] + answer["duplicates"], answer["conflicts"])
    return told != (len(call.sent["body"]["entries"]), [])


def _wrong(counters: Sums, reports: Iterable[Report]) -> str | None:
    sure, perhaps = NOTHING, []
    for report in reports:
        if report.sure:
            sure = sure.plus(report.sums)
        else:
            perhaps.append(report.sums)
    if _reachable(counters.minus(sure), perhaps):
        return None
    return f"the counters are {_told(counters)}, and the ledger has {_told(sure)}" + (
        f" and perhaps some of {len(perhaps)} more entries" if perhaps else ""
    )


def _reachable(left: Sums, perhaps: list[Sums]) -> bool:
    """Whether some of those that may have been counted come to what is left."""
    found = {NOTHING}
    for sums in perhaps:
        found |= {more for more in (one.plus(sums) for one in found) if left.covers(more)}
        if len(found) > MOST_SUMS:
            return left.covers(NOTHING) and _total(perhaps).covers(left)
    return left in found


def _readings(evidence: Evidence) -> dict[str, list[Reading]]:
    found: dict[str, list[Reading]] = defaultdict(list)
    for call in evidence.history.calls:
        agent = shown(call)
        if agent is not None:
            found[agent["id"]].append(Reading(_counters(agent), call))
        elif call.op == "agent_metrics" and call.status == 200 and call.agent is not None:
            found[call.agent].append(Reading(totals(call.answer), call))
    return found


def _too_little(agent: str, readings: list[Reading], reports: list[Report]) -> Iterator[Violation]:
    answered = sorted(readings, key=lambda reading: reading.call.t1 or 0)
    counted = sorted((report for report in reports if report.counted < NEVER), key=lambda report: report.counted)
    highest, read, known, counts = None, 0, NOTHING, 0
    for reading in readings:
        while answered[read].call.t1 < reading.call.t0:  # type: ignore[operator]
            if highest is None or answered[read].sums.covers(highest.sums):
                highest = answered[read]
            read += 1
        while counts < len(counted) and counted[counts].counted < reading.call.t0:
            known = known.plus(counted[counts].sums)
            counts += 1
        if highest is not None and not reading.sums.covers(highest.sums):
            sentence = f"the counters fell from {_told(highest.sums)} to {_told(reading.sums)}"
            yield Violation("counters", sentence, agent, (highest.call, reading.call))
        elif not reading.sums.covers(known):
            sentence = f"{_told(known)} were counted, and {_told(reading.sums)} were shown"
            yield Violation("counters", sentence, agent, (reading.call,))


def _too_much(agent: str, readings: list[Reading], reports: list[Report]) -> Iterator[Violation]:
    sent, most, at = sorted(reports, key=lambda report: report.sent), NOTHING, 0
    for reading in sorted(readings, key=lambda reading: reading.call.t1 or 0):
        while at < len(sent) and sent[at].sent < (reading.call.t1 or 0):
            most = most.plus(sent[at].sums)
            at += 1
        if not most.covers(reading.sums):
            sentence = f"{_told(reading.sums)} were shown, and no more than {_told(most)} had been sent"
            yield Violation("counters", sentence, agent, (reading.call,))


def _used(entry: Mapping[str, Any]) -> Sums:
    tokens = entry.get("input_tokens", 0) + entry.get("output_tokens", 0)
    return Sums(entry.get("tasks_completed", 0), tokens, Decimal(str(entry.get("cost") or 0)))


def _counters(agent: Mapping[str, Any]) -> Sums:
    return Sums(agent["tasks_completed"], agent["tokens_used"], Decimal(agent["cost_incurred"]))


def totals(metrics: Mapping[str, Any]) -> Sums:
    """The counters in Metrics."""
    cost = Decimal(metrics["total_cost_incurred"])
    return Sums(metrics["total_tasks_completed"], metrics["total_tokens_used"], cost)


def _of_group(group: Mapping[str, Any]) -> Sums:
    return Sums(group["tasks_completed"], group["tokens_used"], Decimal(group["cost_incurred"]))


def _total(sums: Iterable[Sums]) -> Sums:
    whole = NOTHING
    for each in sums:
        whole = whole.plus(each)
    return whole


def _told(sums: Sums) -> str:
    return f"{sums.tasks} tasks, {sums.tokens} tokens, {sums.cost} USD"

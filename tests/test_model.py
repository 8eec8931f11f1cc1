"""Any interleaving of orders, usage, cancels and small batches ends as a plain model of the contract says.

The model is the contract's own (tests/chaos/contract.py), with a mailbox and books. Mailboxes grow until a batch is
drained, and a batch may take only a part of them.
"""

import logging
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import cycle
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.chaos.contract import STATUSES, UNBORN, Life, Order, change, owners
from tests.stage import Project, drain, settle, sql, violations

Sent = tuple[str, dict[str, Any]]
"""A verb and its body."""


@dataclass
class Command:
    """What was asked, and how it ended: state, the agent's version after it, the code of its error."""

    id: str
    verb: str
    wanted: dict[str, Any]
    if_match: int | None = None
    ending: tuple[str, int | None, str | None] = ("queued", None, None)


@dataclass
class Agent:
    """One agent, as the contract has it; its mailbox holds queued commands in the order in which they were sent."""

    id: str
    life: Life = UNBORN
    sent: list[Command] = field(default_factory=list)
    mailbox: list[Command] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    uncounted: list[dict[str, Any]] = field(default_factory=list)
    tasks: int = 0
    tokens: int = 0
    cost: Decimal = Decimal(0)

    @property
    def lost(self) -> bool:
        """Whether it will never be born: its spawn was taken back."""
        return self.life.status is None and not any(command.verb == "spawn" for command in self.mailbox)

    def read_mail(self, most: int) -> None:
        """Obey the oldest commands, or refuse them."""
        for command in self.mailbox[:most]:
            error = self._obey(command)
            command.ending = ("rejected" if error else "applied", self.life.version, error)
        del self.mailbox[:most]

    def _obey(self, command: Command) -> str | None:
        demanded = self.life.demands(Order(command.verb, command.wanted, command.if_match))
        if isinstance(demanded, str):
            return demanded
        if demanded is not None:
            self.life = self.life.after(demanded)
            self.events.append((self.life.version, *demanded, command.id))
        return None

    def take(self, entry: dict[str, Any]) -> tuple[bool, bool]:
        """Note an entry of usage, to be counted later: whether it repeats an earlier one, and contradicts it."""
        first = self.reports.setdefault(entry["report_id"], entry)
        if first is entry:
            self.uncounted.append(entry)
        return first is not entry, first != entry

    def count(self) -> None:
        """Add what has not been counted yet."""
        for entry in self.uncounted:
            self.tasks += entry["tasks_completed"]
            self.tokens += entry["input_tokens"] + entry["output_tokens"]
            self.cost += Decimal(entry["cost"])
        self.uncounted.clear()


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["working", "idle"]),
        "name": st.sampled_from(["scout", "digger"]),
        "current_task": st.sampled_from(["count sheep", None]),
        "session_id": st.sampled_from(["session-1", None]),
    },
)


MOVES = ["working", "working", "waiting", "waiting", "idle", "paused", "terminated"]
VERBS = ["pause", "pause", "resume", "resume", "terminate"]
HOLDS = [(verb, {"owner": owner}) for verb in ("pause", "resume") for owner in ("budget", "ops")]
ORDERS = st.one_of(
    st.sampled_from([("update", {"status": status}) for status in MOVES] + [(verb, {}) for verb in VERBS] + HOLDS),
    FIELDS.map(lambda body: ("update", body)),
)
"""What an agent can be told. Ends are rare among it, for little can be told about an agent that has ended."""

WAYS = st.sampled_from(
    [[], ["idle", "working"], ["idle", "working", "waiting"], ["working", "waiting"], ["paused"], ["terminated"]]
)
"""Where an agent is led before it is told anything: by chance alone few would ever get there."""

ENTRIES = st.fixed_dictionaries(
    {
        "report_id": st.sampled_from("abcdefgh"),
        "input_tokens": st.sampled_from([0, 3, 10**12]),
        "output_tokens": st.sampled_from([0, 5]),
        "tasks_completed": st.sampled_from([0, 1]),
        "cost": st.sampled_from(["0", "0.1", "0.0000000001", "999999.9999999999"]),
    }
)


BUSY = {"current_task": "count sheep", "session_id": "session-1"}
CROWD = 5
"""Agents at most: with more, none of them would live to see much."""


class Fleet(RuleBasedStateMachine):
    """Callers who send what they like, and a worker who takes a small batch now and then."""

    agents = Bundle("agents")

    def __init__(self, project: Project) -> None:
        super().__init__()
        sql("TRUNCATE agents, commands, events, usage_entries, usage_hours, project_counters, issues")
        self.project = project
        self.fleet: dict[str, Agent] = {}

    def note(self, agent: Agent, command: Command) -> None:
        """A command was accepted."""
        agent.mailbox.append(command)
        agent.sent.append(command)

    @initialize(target=agents)
    def begin(self) -> Agent:
        """There is always somebody who lives, or has lived."""
        agent = self._spawned(BUSY)
        drain()
        agent.read_mail(1)
        return agent

    @precondition(lambda self: len(self.fleet) < CROWD)
    @rule(target=agents, given=st.sampled_from([BUSY, {}]))
    def spawn(self, given: dict[str, Any]) -> Agent:
        """A new agent, unborn until it is drained."""
        return self._spawned(given)

    @rule(first=agents, second=agents, way=WAYS, orders=st.lists(ORDERS, min_size=1, max_size=6))
    def order(self, first: Agent, second: Agent, way: list[str], orders: list[Sent]) -> None:
        """Some commands for two agents in turn, born or not, or for one."""
        for status in way:
            self._ordered(first, "update", {"status": status})
        for agent, (verb, body) in zip(cycle([first, second]), orders, strict=False):
            self._ordered(agent, verb, body)

    @rule(agent=agents, ahead=st.integers(0, 1), body=FIELDS)
    def order_if_match(self, agent: Agent, ahead: int, body: dict[str, Any]) -> None:
        """An update for one version of an agent: the present one, or one that others may yet bring about."""
        version = max(agent.life.version, 1) + ahead
        answer = self.project.api.patch(self.project.agent(agent.id), body, If_Match=f'"{version}"')
        assert answer.status_code == 202, answer.json
        self.note(agent, Command(answer.json["id"], "update", body, if_match=version))

    @precondition(lambda self: any(agent.mailbox for agent in self.fleet.values()))
    @rule(agent=agents, which=st.integers(0, 3))
    def cancel(self, agent: Agent, which: int) -> None:
        """Take a command back, the spawn perhaps, which succeeds while it is queued."""
        command = agent.sent[-1 - which % len(agent.sent)]
        answer = self.project.api.post(f"{self.project.path}/commands/{command.id}/cancel")
        queued = command in agent.mailbox
        assert answer.status_code == (200 if queued else 409), answer.json
        if queued:
            command.ending = ("cancelled", None, None)
            agent.mailbox.remove(command)

    @rule(agent=agents, entries=st.lists(ENTRIES, min_size=1, max_size=4))
    def report(self, agent: Agent, entries: list[dict[str, Any]]) -> None:
        """Usage, repeats and contradictions included."""
        answer = self.project.api.post(f"{self.project.agent(agent.id)}/usage", {"entries": entries})
        if agent.lost:
            assert answer.status_code == 404, answer.json
            return
        taken = [agent.take(entry) for entry in entries]
        repeats = sum(repeat for repeat, _ in taken)
        conflicts = [index for index, (_, conflict) in enumerate(taken) if conflict]
        assert answer.status_code == 202, answer.json
        assert answer.json == {"accepted": len(entries) - repeats, "duplicates": repeats, "conflicts": conflicts}

    @precondition(lambda self: any(agent.mailbox or agent.uncounted for agent in self.fleet.values()))
    @rule(limit=st.sampled_from([1, 3, 20]), mailbox=st.sampled_from([1, 2, 5, 50]))
    def drain(self, limit: int, mailbox: int) -> None:
        """One batch: it takes something wherever something waits, and from each agent the oldest."""
        mail = any(agent.mailbox for agent in self.fleet.values())
        usage = any(agent.uncounted for agent in self.fleet.values())

        batch = drain(limit, mailbox)

        assert (bool(batch.claim.mail), bool(batch.claim.usage)) == (mail, usage)
        for agent in self._named(batch.claim.agents):
            agent.read_mail(mailbox)
        for agent in self._named(batch.claim.usage):
            agent.count()
        self._compare()
        for agent in self._named(batch.claim.mail):
            self._compare_events(agent)

    def teardown(self) -> None:
        """Let everything be drained, and compare the whole."""
        settle()
        for agent in self.fleet.values():
            agent.read_mail(len(agent.mailbox))
            agent.count()
        self._compare()
        for agent in self._born():
            self._compare_events(agent)
        self._compare_metrics()
        assert violations() == {}

    def _spawned(self, given: dict[str, Any]) -> Agent:
        made = self.project.spawn(wait=False, name="scout", **given)
        wanted = {"agent_type_id": self.project.type_id, "name": "scout"} | given
        agent = self.fleet[made["agent_id"]] = Agent(made["agent_id"])
        self.note(agent, Command(made["id"], "spawn", wanted))
        return agent

    def _ordered(self, agent: Agent, verb: str, body: dict[str, Any]) -> None:
        self.note(agent, Command(self.project.send(agent.id, verb, **body)["id"], verb, body))

    def _named(self, ids: Any) -> list[Agent]:
        return [self.fleet[str(id_)] for id_ in ids if isinstance(id_, UUID)]

    def _born(self) -> list[Agent]:
        return [agent for agent in self.fleet.values() if agent.life.status]

    def _compare(self) -> None:
        shown = {agent["id"]: agent for agent in self._all("agents")}
        assert {id_: _facts(agent) for id_, agent in shown.items()} == {a.id: _expected(a) for a in self._born()}
        endings = {command["id"]: _ending(command) for command in self._all("commands")}
        assert endings == {command.id: command.ending for a in self.fleet.values() for command in a.sent}

    def _compare_events(self, agent: Agent) -> None:
        found = self._all(f"agents/{agent.id}/events") if agent.life.status else []
        assert [(event["version"], *change(event), event["command_id"]) for event in found] == agent.events

    def _compare_metrics(self) -> None:
        shown = self.project.api.get(f"{self.project.path}/agents/metrics").json
        fleet, born = self.fleet.values(), self._born()
        by_status = {status: sum(agent.life.status == status for agent in born) for status in STATUSES}
        assert shown.pop("by_status") == by_status
        assert Decimal(shown.pop("total_cost_incurred")) == sum(agent.cost for agent in fleet)
        assert shown == {
            "total_instances": len(born),
            "active_instances": by_status["working"],
            "idle_instances": by_status["idle"],
            "total_tasks_completed": sum(agent.tasks for agent in fleet),
            "total_tokens_used": sum(agent.tokens for agent in fleet),
        }

    def _all(self, below: str) -> list[dict[str, Any]]:
        """Every page of a list."""
        path = f"{self.project.path}/{below}?limit=100"
        answer = self.project.api.get(path).json
        found = answer["data"]
        while cursor := answer["pagination"]["next_cursor"]:
            answer = self.project.api.get(f"{path}&cursor={cursor}").json
            found += answer["data"]
        return found


def _facts(shown: dict[str, Any]) -> tuple[Any, ...]:
    """What the model knows of an agent, as the API shows it."""
    names = ("status", "version", "name", "current_task", "session_id", "tasks_completed", "tokens_used")
    ended = shown["terminated_at"] is not None
    return (*(shown[name] for name in names), Decimal(shown["cost_incurred"]), ended, owners(shown["holds"]))


def _expected(agent: Agent) -> tuple[Any, ...]:
    """The same, as the model has it."""
    life = agent.life
    fields = (life.fields.get(name) for name in ("name", "current_task", "session_id"))
    counters = (agent.tasks, agent.tokens, agent.cost)
    return (life.status, life.version, *fields, *counters, life.status == "terminated", life.fields["holds"])


def _ending(command: dict[str, Any]) -> tuple[str, int | None, str | None]:
    """How a command ended, as the API shows it."""
    return command["state"], command["version"], command["error"] and command["error"]["code"]


@pytest.mark.timeout(600)  # a failing run is made as short as it can be, which takes a while
def test_every_interleaving_ends_as_the_contract_says(quiet: Project, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "orchestrator")
    run_state_machine_as_test(
        lambda: Fleet(quiet),
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            phases=set(Phase) - {Phase.explain},
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )

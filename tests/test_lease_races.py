"""Leases under races: whatever an old epoch does at the moment of a stop, nothing of it comes after the stop."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from threading import Event, Lock
from typing import Any

import pytest
from werkzeug.test import TestResponse

from orchestrator.db import autocommit
from orchestrator.lease_tables import LIVE
from tests.redis_server import OwnRedis
from tests.stage import WAIT, Api, Project, eventually, is_problem, multiply, run, settle, sql, violations
from tests.test_leases import beat, lease, leased, shown, told

AGENTS, ROUNDS = 50, 20
"""Of the great race: each agent runs once in each round, so that there are a thousand races with workers and a thousand
without."""

LANES = 3
"""Races at a time; in each of them four requests are under way at once."""

PAUSES = 50
"""By each of four operators."""

IMMEDIATE = {"mode": "immediate"}


@dataclass(frozen=True)
class Ground:
    """Where races take place: a project, and how everything that was accepted comes to be applied."""

    project: Project
    rest: Callable[[], None]

    def born(self, count: int) -> list[str]:
        """The ids of so many new idle agents."""
        first = self.project.spawn(wait=False)["agent_id"]
        multiply(first, count - 1)
        self.project.send(first, "update", name="first")  # rings
        self.rest()
        rows = sql("SELECT id FROM agents WHERE project_id = :id AND status = 'idle'", id=self.project.id)
        assert len(rows) == count
        return [str(row.id) for row in rows]


@pytest.fixture(params=["with workers", "with all workers stopped"])
def ground(request: pytest.FixtureRequest) -> Ground:
    """A project whose commands workers apply at once, or nobody before the race is over."""
    if request.param == "with workers":
        project = request.getfixturevalue("project")
        return Ground(project, lambda: eventually(lambda: queued(project) == 0, 20))
    return Ground(request.getfixturevalue("quiet"), settle)


def queued(project: Project) -> int:
    """How many commands wait."""
    waiting = "SELECT count(*) AS n FROM commands WHERE project_id = :id AND state = 'queued'"
    return int(sql(waiting, id=project.id)[0].n)


def own_door(project: Project) -> Project:
    """The same project through a client of this thread's own."""
    return replace(project, api=Api(project.api.client.application.test_client(), project.api.key))


@dataclass(frozen=True)
class Sent:
    """One request: when it was sent, and its answer."""

    at: float
    answer: TestResponse


Move = Callable[[Project], TestResponse]


def at_once(pool: ThreadPoolExecutor, project: Project, moves: Sequence[Move]) -> list[Sent]:
    """All moves at the same moment, each from a thread of its own."""

    def send(move: Move) -> Sent:
        door = own_door(project)
        return Sent(time.monotonic(), move(door))

    return [running.result() for running in [pool.submit(send, move) for move in moves]]


@contextmanager
def lanes() -> Iterator[Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]]:
    """A `map` over races, several at a time."""
    with ThreadPoolExecutor(LANES) as pool:
        yield lambda race, over: list(pool.map(race, over))


def patch(project: Project, agent: str, epoch: int, **says: Any) -> TestResponse:
    """An update that only the holder of this epoch may make."""
    return project.api.patch(project.agent(agent), says, Lease_Epoch=str(epoch))


def refused(answer: TestResponse, *codes: str) -> bool:
    """Whether it is a 409 with one of these codes."""
    return any(is_problem(answer, 409, code) for code in codes)


@dataclass
class Race:
    """An immediate pause against all that the process of an agent, and those who want its place, can do meanwhile."""

    project: Project
    agent: str
    dice: Random
    epochs: list[int] = field(default_factory=list)
    """Those that were granted."""
    version: int = 0
    """The agent's, once the pause was accepted."""
    accepted_at: float = 0

    def run(self, pool: ThreadPoolExecutor) -> None:
        """Run it, with what is tried once the pause is accepted, and see that all answers are right."""
        self.epochs = [leased(self.project, self.agent, "mine")["epoch"]]
        rivals = {"patch": self._patch, "mine": self._mine, "other": self._other}
        moves = {"pause": self._pause, "beat": self._beat} | dict(self.dice.sample(list(rivals.items()), 2))
        names = self.dice.sample(list(moves), len(moves))
        raced = dict(zip(names, at_once(pool, self.project, [moves[name] for name in names]), strict=True))
        assert raced["pause"].answer.status_code == 202
        if "mine" in raced and raced["mine"].answer.status_code == 201:
            self.epochs.append(raced["mine"].answer.json["epoch"])  # type: ignore[index]

        for name, sent in raced.items():
            late = sent.at > self.accepted_at
            assert name == "pause" or self._is_right(name, sent.answer, late), (name, late, sent.answer.json)
        self._check_late()

    def _pause(self, project: Project) -> TestResponse:
        answer = project.api.post(f"{project.agent(self.agent)}/pause", IMMEDIATE)
        self.accepted_at = time.monotonic()
        with autocommit() as db:
            self.version = run(db, "SELECT version FROM agents WHERE id = :id", id=self.agent)[0].version
        return answer

    def _beat(self, project: Project) -> TestResponse:
        status = self.dice.choice(["idle", "working", "waiting"])
        return beat(project, self.agent, self.epochs[0], status=status, current_task="beaten")

    def _patch(self, project: Project) -> TestResponse:
        says = self.dice.choice([{"status": "working"}, {"current_task": "patched"}])
        return patch(project, self.agent, self.epochs[0], **says)

    def _mine(self, project: Project) -> TestResponse:
        return lease(project, self.agent, "mine")

    def _other(self, project: Project) -> TestResponse:
        return lease(project, self.agent, "other")

    def _is_right(self, name: str, answer: TestResponse, late: bool) -> bool:
        if name == "patch":
            return answer.status_code == 202
        if refused(answer, "fenced" if name == "beat" else "held"):
            return True
        # Who was granted the lease and then refused it held it for a moment.
        may_be_granted = answer.status_code in (200, 201) and name != "other"
        return not late and (may_be_granted or (name != "beat" and refused(answer, "lease_held")))

    def _check_late(self) -> None:
        for epoch in self.epochs:
            assert refused(beat(self.project, self.agent, epoch, status="working", current_task="late"), "fenced")
        if self.dice.random() < 0.5:
            patch(self.project, self.agent, self.epochs[-1], current_task="late")
        else:
            assert refused(lease(self.project, self.agent, self.dice.choice(["mine", "other"])), "held")


def written_after_the_stop(races: Sequence[Race]) -> list[Any]:
    """The events of old epochs that came after the acceptance of the stop that ended them."""
    return sql(
        """SELECT e.* FROM unnest(CAST(:agents AS uuid[]), CAST(:versions AS bigint[]), CAST(:epochs AS bigint[]))
            AS r (agent_id, version, epoch)
        JOIN events e ON e.agent_id = r.agent_id AND e.version > r.version
        JOIN commands c ON c.id = e.command_id AND c.epoch <= r.epoch""",
        agents=[race.agent for race in races],
        versions=[race.version for race in races],
        epochs=[max(race.epochs) for race in races],
    )


def resume(project: Project, agents: Sequence[str]) -> None:
    """Let all of them go on, by one request."""
    resumes = {"commands": [{"verb": "resume", "agent_id": agent} for agent in agents]}
    answer = project.api.post(f"{project.path}/commands", resumes)
    assert (answer.status_code, answer.json["accepted"]) == (202, len(agents)), answer.json  # type: ignore[index]


def live(project: Project) -> int:
    """How many leases are."""
    return int(sql(f"SELECT count(*) AS n FROM leases l WHERE project_id = :id AND {LIVE}", id=project.id)[0].n)


def quiesced_in_motion(project: Project) -> int:
    """How many agents are said to stand still whose process may go on, and never said that it stands still."""
    moving = f"""SELECT 1 FROM agents a JOIN leases l ON l.agent_id = a.id
        WHERE a.project_id = :id AND a.quiesced_at IS NOT NULL AND l.acked_at IS NULL AND {LIVE}"""
    return len(sql(moving, id=project.id))


@pytest.mark.timeout(900)  # a thousand races on a machine that has much else to do
def test_nothing_of_an_old_epoch_comes_after_an_immediate_pause(ground: Ground) -> None:
    project, agents, races = ground.project, ground.born(AGENTS), list[Race]()
    with ThreadPoolExecutor(4 * LANES) as pool, lanes() as each:
        for number in range(ROUNDS):
            heat = [Race(own_door(project), agent, Random(f"{number}{agent}")) for agent in agents]  # noqa: S311
            each(lambda race: race.run(pool), heat)
            ground.rest()

            stands = "SELECT DISTINCT status, stop IS NULL AS ended, quiesced_by FROM agents WHERE project_id = :id"
            found = {tuple(row) for row in sql(stands, id=project.id)}
            assert found <= {("paused", True, "no_lease"), ("paused", True, "release")}
            assert live(project) == 0
            resume(project, agents)
            ground.rest()
            races += heat

    assert len(races) == AGENTS * ROUNDS
    assert written_after_the_stop(races) == []
    unsettled = "SELECT 1 FROM commands WHERE project_id = :id AND verb = 'pause' AND quiesced_by IS NULL"
    assert sql(unsettled, id=project.id) == []
    assert violations() == {}


@pytest.mark.parametrize("mode", ["checkpoint", "immediate"])
def test_a_pause_that_meets_a_grant_refuses_it_or_ends_it(ground: Ground, mode: str) -> None:
    project, agents = ground.project, ground.born(300 if mode == "checkpoint" else 60)
    for agent in agents[: len(agents) // 3]:  # here the grant replaces a lease
        told(project, agent, leased(project, agent)["epoch"], status="working")
    ground.rest()

    def race(agent: str) -> None:
        moves: list[Move] = [
            lambda door: door.api.post(f"{door.agent(agent)}/pause", {"mode": mode}),
            lambda door: lease(door, agent),
        ]
        order = Random(agent).sample([0, 1], 2)  # noqa: S311
        sent = dict(zip(order, at_once(pool, project, [moves[n] for n in order]), strict=True))
        paused, granted = sent[0].answer, sent[1].answer
        assert paused.status_code == 202
        if granted.status_code == 409:
            assert is_problem(granted, 409, "held")
            return
        after = beat(own_door(project), agent, granted.json["epoch"])  # type: ignore[index]
        assert after.json["directive"] == "pause"  # type: ignore[index]
        assert after.status_code == (200 if mode == "checkpoint" else 409)

    with ThreadPoolExecutor(2 * LANES) as pool, lanes() as each:
        each(race, agents)
    ground.rest()

    assert {row.status for row in sql("SELECT status FROM agents WHERE project_id = :id", id=project.id)} == {"paused"}
    assert quiesced_in_motion(project) == 0
    assert violations() == {}


def test_of_two_holders_at_once_one_is_granted_the_lease(quiet: Project) -> None:
    agents = Ground(quiet, settle).born(100)

    with ThreadPoolExecutor(2) as pool:
        for agent in agents:
            one, two = (
                sent.answer
                for sent in at_once(pool, quiet, [lambda p, a=agent, h=h: lease(p, a, h) for h in ("one", "two")])
            )
            assert sorted([one.status_code, two.status_code]) == [201, 409]
            assert is_problem(max(one, two, key=lambda answer: answer.status_code), 409, "lease_held")

    assert live(quiet) == len(agents)


def test_grants_at_once_to_one_holder_differ_in_epoch_and_only_the_highest_lives(quiet: Project) -> None:
    agents, grants = Ground(quiet, settle).born(20), 6

    with ThreadPoolExecutor(grants) as pool:
        for agent in agents:
            answers = at_once(pool, quiet, [lambda p, a=agent: lease(p, a)] * grants)
            epochs = [sent.answer.json["epoch"] for sent in answers]  # type: ignore[index]

            assert sorted(epochs) == list(range(1, grants + 1))
            answered = {epoch: beat(quiet, agent, epoch).status_code for epoch in epochs}
            assert answered == dict.fromkeys(range(1, grants), 409) | {grants: 200}


@dataclass
class Process:
    """A process that does as it is told: it works, stands still and says so from the word `pause` on, and goes on at
    the word `continue`."""

    project: Project
    agent: str
    epoch: int
    steps: int = 0
    stands: bool = False
    lock: Lock = field(default_factory=Lock)
    ended: Event = field(default_factory=Event)

    def run(self) -> None:
        """Work until ended."""
        while not self.ended.is_set():
            with self.lock:
                says = {"ack": True} if self.stands else {"status": self._work()}
            directive = told(self.project, self.agent, self.epoch, **says)["directive"]
            with self.lock:
                self.stands = directive == "pause"

    def _work(self) -> str:
        self.steps += 1
        return ("working", "waiting", "working", "idle")[self.steps % 4]

    def seen(self) -> tuple[bool, int]:
        """Whether it stands still, and how far it has come."""
        with self.lock:
            return self.stands, self.steps


def operate(process: Process, operator: Project) -> list[str]:
    """Pause and resume a process again and again; by what it was said to stand still each time."""
    dice, place, causes = Random(process.agent), operator.agent(process.agent), []  # noqa: S311
    for _ in range(PAUSES):
        paused = operator.api.post(f"{place}/pause?until=quiesced", **WAIT)
        stands, steps = process.seen()
        assert (paused.status_code, stands) == (200, True), paused.json
        causes.append(paused.json["quiesced_by"])  # type: ignore[index]
        assert shown(operator, process.agent)["status"] == "paused"
        assert process.seen() == (True, steps)
        resumed = operator.api.post(f"{place}/resume", **dice.choice([WAIT, {}]))
        assert resumed.status_code in (200, 202)
        if dice.random() < 0.5:
            eventually(lambda before=steps: process.seen()[1] > before)  # type: ignore[misc]
    return causes


def test_who_is_known_to_stand_still_does_so_until_it_is_resumed(project: Project) -> None:
    agents = [project.spawn()["id"] for _ in range(4)]
    processes = [Process(own_door(project), agent, leased(project, agent)["epoch"]) for agent in agents]

    with ThreadPoolExecutor(2 * len(processes)) as pool, ExitStack() as stack:
        running = [pool.submit(process.run) for process in processes]
        for process in processes:
            stack.callback(process.ended.set)
        operators = [pool.submit(operate, process, own_door(project)) for process in processes]
        causes = [cause for operator in operators for cause in operator.result()]
        stack.close()
        for process in running:
            process.result()

    assert causes == ["ack"] * PAUSES * len(processes)
    assert violations() == {}


@pytest.mark.parametrize(
    ("verb", "directive", "code"), [("pause", "pause", "held"), ("terminate", "terminate", "conflict")]
)
def test_a_stop_binds_from_its_acceptance_on_while_all_workers_and_redis_are_down(
    quiet: Project, own_redis: OwnRedis, verb: str, directive: str, code: str
) -> None:
    agent = quiet.born()
    leased(quiet, agent, "mine")
    told(quiet, agent, 1, status="working")
    own_redis.stop()

    quiet.send(agent, verb, reason="enough", mode="checkpoint")

    at_next = told(quiet, agent, 1)
    assert (at_next["directive"], at_next["mode"], at_next["reason"]) == (directive, "checkpoint", "enough")
    for holder in ("mine", "other"):
        assert is_problem(lease(quiet, agent, holder), 409, code)
    quiet.send(agent, "resume")  # what is queued behind it does not open the door again
    assert told(quiet, agent, 1)["directive"] == directive
    assert sql("SELECT state FROM commands WHERE verb = :verb", verb=verb) == [("queued",)]

"""One campaign: clients at work while things go wrong, one after the other; then quiet, and what the API shows."""

import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import history
from tests.chaos.client import TRIES, Caller, Request
from tests.chaos.faults import WITHOUT_BELLS
from tests.chaos.follower import Follower, Listener
from tests.chaos.history import Fault, Final, Recorder
from tests.chaos.mishaps import go_wrong
from tests.chaos.plan import Plan
from tests.chaos.stack import Stack, stack
from tests.chaos.workload import API, HOT, Client, World

CLIENTS = 8
REPLAYER = CLIENTS
"""The client that asks once more for what nobody knows of."""

CALM_SECONDS = 12.0
"""For which the clients go on after the last fault: who waits for a command in vain then, may accuse."""

LEASE_ENDS_SECONDS = 8.0
"""After its last beat a lease of five seconds is lost, and that is noticed: nothing moves any more."""

LISTENING_SECONDS = 30.0
"""In the end, for what the stream has not brought yet: events are told within a second, and one that was cut comes back
after one."""


@dataclass
class Campaign:
    """What is known of one while it runs."""

    plan: Plan
    folder: Path
    stack: Stack
    faults: list[Fault] = field(default_factory=list)
    recorders: list[Recorder] = field(default_factory=list)

    def caller(self, number: int, key: str | None = None) -> Caller:
        """One with a file of its own, where no other has the number."""
        recorder = Recorder(self.folder, number)
        self.recorders.append(recorder)
        return Caller(self.stack.address, key or self.stack.key, recorder, number)


def run(plan: Plan, folder: Path) -> None:
    """Leave a history in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    history.write_aim(folder, plan.wanted, plan.commands)
    with stack(folder / "stack", plan.planted) as running:
        campaign = Campaign(plan, folder, running)
        world, stranger = _make_world(campaign)
        replayer = campaign.caller(REPLAYER)
        follower = Follower(campaign.caller(CLIENTS + 2), world)
        listener = Listener(f"http://{running.address}", running.key, f"projects/{world.project}/events")
        listener.open()
        _under_load(campaign, world, stranger, (follower, listener))
        _until(lambda: _is_ready(replayer), plan.patience)
        _ask_again(replayer, world.unknown)
        _last_words(campaign, replayer, world)
        time.sleep(LEASE_ENDS_SECONDS)
        _until(lambda: _is_done(replayer, world), plan.patience)
        time.sleep(3)  # usage that waits is counted within two sweeps
        follower.catch_up()
        listener.catch_up(len(follower.seen), LISTENING_SECONDS)
        listener.close()
        history.write(folder, campaign.faults, _final(replayer, world, follower, listener))
        for recorder in campaign.recorders:
            recorder.close()


def _make_world(campaign: Campaign) -> tuple[World, str]:
    """A project and an agent type; and the key of a user who has nothing to do with it."""
    ask = campaign.caller(CLIENTS + 1).ask

    def made(path: str, **body: Any) -> Any:
        answered = ask(Request("made", "POST", f"{API}/{path}", body=body))
        if answered is None or answered[0] != 201:
            raise RuntimeError(f"{path}: {answered}")
        return answered[1]

    project, kind = made("projects", name="Chaos"), made("agent-types", name="Simulated")
    stranger = made("users", email="stranger@example.org")
    return World(project["id"], kind["id"]), made("keys", name="stranger", user_id=stranger["id"])["key"]


def _under_load(campaign: Campaign, world: World, stranger: str, followers: tuple[Follower, Listener]) -> None:
    clients = [
        Client(number, campaign.caller(number), campaign.caller(100 + number, stranger), world, campaign.plan.seed)
        for number in range(CLIENTS)
    ]
    with ThreadPoolExecutor(CLIENTS + len(followers)) as pool:
        working = [pool.submit(one.work) for one in (*clients, *followers)]
        try:
            go_wrong(campaign.plan, campaign.stack, campaign.faults)
            time.sleep(CALM_SECONDS)
        finally:
            for one in (*clients, *followers):
                one.stopping = True
        for work in working:
            work.result()


def _is_ready(caller: Caller) -> bool:
    answered = caller.ask(Request("", "GET", "/readyz"))
    return answered is not None and answered[0] == 200


def _ask_again(caller: Caller, unknown: Iterable[Request]) -> None:
    rng = random.Random(0)  # noqa: S311
    for request in unknown:
        caller.insist(request, rng)


def _last_words(campaign: Campaign, caller: Caller, world: World) -> None:
    """Commands after which nobody rings: the bells are lost with Redis, and only a sweep can find them. A fault like
    any other, so that the checks know of it."""
    rng = random.Random(0)  # noqa: S311
    redis, began, connections = campaign.stack.redis, time.monotonic_ns(), campaign.stack.to_redis.open
    redis.stop()
    redis.lose()
    for number, agent in enumerate(world.agents[:HOT]):
        key = f"last-{number}"
        path = f"{world.path}/agents/{agent}"
        caller.insist(Request("update", "PATCH", path, agent, key, {"current_task": key, "reason": key}), rng)
    redis.begin()
    campaign.faults.append(Fault(WITHOUT_BELLS, "connections", began, time.monotonic_ns(), connections))


def _is_done(caller: Caller, world: World) -> bool:
    answered = caller.ask(Request("", "GET", f"{world.path}/commands?state=queued&limit=1"))
    return answered is not None and answered[0] == 200 and not answered[1]["data"]


def _until(fact: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.1)


def _final(caller: Caller, world: World, follower: Follower, listener: Listener) -> Final:
    agents = list(caller.pages(f"{world.path}/agents?limit=100"))
    commands = list(caller.pages(f"{world.path}/commands?limit=100"))
    return Final(
        agents=agents,
        commands=commands,
        events={agent["id"]: _events(caller, world, agent["id"]) for agent in agents},
        metrics=_answer(caller, f"{world.path}/agents/metrics"),
        violated=[found["name"] for found in _answer(caller, f"{API}/verify")["invariants"] if found["violations"]],
        feed=[*follower.seen],
        stream=[*listener.seen],
        usage=_answer(caller, f"{world.path}/usage?group_by=model")["data"],
    )


def _events(caller: Caller, world: World, agent: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        after = found[-1]["version"] if found else 0
        page = _answer(caller, f"{world.path}/agents/{agent}/events?after_version={after}&limit=100")
        found += page["data"]
        if len(page["data"]) < 100:
            return found


def _answer(caller: Caller, path: str) -> Any:
    """What is shown there; asked again where that fails, for it is the clients' calls that are judged."""
    for _ in range(TRIES):
        answered = caller.ask(Request("", "GET", path))
        if answered is not None and answered[0] == 200:
            return answered[1]
    raise RuntimeError(f"{path}: {answered}")

"""The demo: books that agree, books that do not and are found out, and nothing left behind."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.demo.actor import DEADLINE_SECONDS
from orchestrator.cli.demo.careers import CAREERS, KINDS, cast
from tests.shell import Orch, serving
from tests.stage import Api, eventually, sql

pytestmark = pytest.mark.usefixtures("worker")

STEPS = {"work", "wait", "rest", "pause", "resume", "terminate", "report", "kill", "deaf", "stop", "pause!", "resume!"}


FEW_WAIT = {"ORCH_WAITERS": "12"}
"""As many as the product lets wait by itself: some threads must be left for the beats of 24 processes."""

LIMITS = json.dumps({"*": "off", "spawn": "8/second", "list": "2/second", "pause": "2/second"})

SHORT = """
from orchestrator.cli import main
from orchestrator.cli.demo import careers

careers.CAREERS = careers.CAREERS[4::2]  # the longest, and one that is terminated: six agents
main(prog_name="orch")
"""


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[str]:
    """The address of a web server, which has limits."""
    with serving(home / "web-demo.log", ORCH_LIMITS=LIMITS, **FEW_WAIT) as url:
        yield url


@pytest.fixture
def orch(server: str, template: tuple[str, str]) -> Orch:
    """The command line of an administrator."""
    return Orch({"ORCH_URL": server, "ORCH_API_KEY": template[1]})


@pytest.fixture
def short(orch: Orch) -> Orch:
    """The same, whose demo has fewer agents: for what does not hang on how many there are."""
    return replace(orch, program=[sys.executable, "-c", SHORT])


@contextmanager
def playing(orch: Orch, *line: str) -> Iterator[tuple["subprocess.Popen[str]", str, str]]:
    """A demo that has begun: its process, its project, and the first of its agents."""
    with orch.start("demo", *line) as process:
        assert process.stderr is not None
        announced = re.search(r"project (demo-\w+)", process.stderr.readline())
        assert announced
        project = str(sql("SELECT id FROM projects WHERE slug = :slug", slug=announced[1])[0].id)
        born = "SELECT id FROM agents WHERE project_id = :p AND status IS NOT NULL LIMIT 1"
        yield process, project, str(eventually(lambda: sql(born, p=project))[0].id)


def test_the_same_seed_makes_the_same_play() -> None:
    def told(seed: int) -> list[Any]:
        return [(role.name, role.kind, role.steps, role.task(), role.entries(0)) for role in cast(seed)]

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_every_type_of_agent_takes_every_kind_of_step() -> None:
    roles = cast(1)

    assert len(roles) == len({role.name for role in roles}) == len(CAREERS) * len(KINDS) == 24
    for kind in KINDS:
        assert {step for role in roles if role.kind == kind for step in role.steps} == STEPS


ENDINGS = {"idle": 3, "working": 9, "waiting": 3, "paused": 3, "terminated": 6}
"""What becomes of all agents."""


def playing_with(step: str) -> list[str]:
    """The names of those whose career has this step: one of each type."""
    numbers = [number for number, career in enumerate(CAREERS, 1) if step in career.split()]
    return [f"{kind}-{number}" for kind in KINDS for number in numbers]


def was_killed_and_replaced(api: Api, agent: str) -> bool:
    """Whether its process was lost without a word, and another one went on to work."""
    past = [(event["verb"], event["reason"]) for event in api.get(f"{agent}/events").json["data"]]  # type: ignore[index]
    lost = past.index(("rest", "lease_lost"))
    later = [verb for verb, _ in past[lost:]]
    return "work" in later and api.get(f"{agent}/explain").json["lease"]["epoch"] == 2  # type: ignore[index]


def ignored_a_pause_until_it_was_fenced(api: Api, project: str, agent: str) -> bool:
    """Whether its last pause waited for it until the deadline, and ended a lease that was not lost till then."""
    pauses = api.get(f"{project}/commands?verb=pause&state=applied&agent_id={agent.rpartition('/')[2]}").json["data"]  # type: ignore[index]
    asked, still = (datetime.fromisoformat(pauses[0][name]) for name in ("requested_at", "quiesced_at"))
    lease = api.get(f"{agent}/explain").json["lease"]  # type: ignore[index]
    return (
        [pause["quiesced_by"] for pause in pauses] == ["expiry", "ack"]
        and still - asked >= timedelta(seconds=DEADLINE_SECONDS)
        and (lease["epoch"], lease["ended_by"]) == (2, "fence")
    )


def test_a_demo_obeys_limits_shows_its_agents_live_and_its_books_agree(orch: Orch, admin: Api) -> None:
    code, shown = orch.on_terminal("demo", "--seed", "3")

    assert code == 0, shown
    assert "waiting: " in shown
    assert "researcher-1" in shown
    assert "total tokens used" in shown
    assert "every invariant holds" in shown
    assert "agree to the last digit" in shown
    announced = re.search(r"project (demo-\w+)", shown)
    assert announced
    project = f"projects/{sql('SELECT id FROM projects WHERE slug = :slug', slug=announced[1])[0].id}"
    listed = admin.get(f"{project}/agents?limit=100").json["data"]  # type: ignore[index]
    assert Counter(agent["status"] for agent in listed) == ENDINGS
    agents = {agent["name"]: f"{project}/agents/{agent['id']}" for agent in listed}
    for name in playing_with("kill"):
        assert was_killed_and_replaced(admin, agents[name]), name
    for name in playing_with("deaf"):
        assert ignored_a_pause_until_it_was_fenced(admin, project, agents[name]), name


def test_what_the_demo_did_not_send_and_what_was_changed_behind_its_back_is_found_out(short: Orch, admin: Api) -> None:
    change = "UPDATE agents SET cost_incurred = cost_incurred + :more, version = version + :one WHERE id = :id"
    with playing(short, "-o", "json") as (process, project, agent):
        entry = {"report_id": "foreign", "output_tokens": 1, "cost": "0.0000000001"}
        admin.post(f"projects/{project}/agents/{agent}/usage", {"entries": [entry]})
        kind = admin.get(f"projects/{project}/agents/{agent}").json["agent_type_id"]  # type: ignore[index]
        body = {"agent_type_id": kind, "name": "stowaway"}
        stowaway = admin.post(f"projects/{project}/agents", body).json["agent_id"]  # type: ignore[index]
        ended = "SELECT id FROM agents WHERE project_id = :p AND status = 'terminated'"
        falsified = str(eventually(lambda: sql(ended, p=project), seconds=60)[0].id)
        sql(change, more=Decimal("0.0000000001"), one=1, id=falsified)
        try:
            out, err = process.communicate(timeout=120)
        finally:
            sql(change, more=Decimal("-0.0000000001"), one=-1, id=falsified)

    assert process.returncode == 1
    told = json.loads(out)
    assert told["counted"]["total_tokens_used"] == told["sent"]["total_tokens_used"] + 1
    found = "\n".join(told["mismatches"])
    assert "the project: total_tokens_used should be" in found
    assert "the project: total_cost_incurred should be" in found
    assert "in the ledger: entries should be" in found
    assert f"agent {stowaway} is in the project, and nobody spawned it" in found
    assert "cost_incurred should be" in found
    assert "version should be" in found
    assert "invariant I3" in found
    assert "invariant I8a" in found
    assert "the books disagree" in err


def test_the_demo_is_a_superusers_business(orch: Orch, admin: Api) -> None:
    key = str(admin.user().key)

    result = orch.run("demo", ORCH_API_KEY=key)

    assert result.returncode == 4
    assert json.loads(orch("project", "ls", ORCH_API_KEY=key).stdout) == []


def test_a_demo_that_is_stopped_ends_at_once(short: Orch) -> None:
    with playing(short) as (process, _, _):
        process.terminate()
        _, err = process.communicate(timeout=10)

    assert process.returncode == 143
    assert "Traceback" not in err

"""The client for those who run fleets, against a real web server and a real worker: each operation once."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from orchestrator.sdk import Conflict, Fenced, Orchestrator, ProjectClient, Timeout, Unauthenticated, documents
from orchestrator.sdk.shapes import Agent
from tests.shell import serving
from tests.stage import Project, eventually

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
def scout(demo: ProjectClient, project: Project) -> Agent:
    """A new agent."""
    return born(demo, project)


def born(demo: ProjectClient, project: Project, name: str = "scout", **more: Any) -> Agent:
    """A new agent, idle."""
    spawn = demo.commands.wait(demo.agents.spawn(name, agent_type_id=project.type_id, **more))
    return demo.agents.get(spawn.agent_id)


def is_refused(client: Orchestrator) -> bool:
    """Whether its key is no longer taken."""
    try:
        client.me()
    except Unauthenticated as error:
        return error.status == 401
    return False


def test_a_project_is_made_found_changed_and_archived(orch: Orchestrator) -> None:
    made = orch.projects.create(f"Project {uuid4().hex[:8]}")

    assert made in list(orch.projects.list())
    assert orch.projects.get(made.id) == made
    assert orch.project(made.slug).id == orch.project(made.id).id == made.id
    changed = orch.projects.change(made.id, name="Other", status="archived")
    assert (changed.name, changed.status, changed.slug) == ("Other", "archived", made.slug)


def test_a_kind_of_agent_is_made_found_and_closed(orch: Orchestrator) -> None:
    slug = uuid4().hex
    made = orch.types.create("Reader", slug=slug)

    assert (made.slug, made.is_active) == (slug, True)
    assert made in list(orch.types.list())
    assert orch.types.get(made.id) == made
    assert not orch.types.change(made.id, is_active=False).is_active


def test_a_user_gets_a_key_that_is_good_until_it_is_revoked(orch: Orchestrator, server: str) -> None:
    user = orch.users.create(f"{uuid4().hex}@example.org")
    soon = datetime.now(UTC) + timedelta(hours=1)
    key = orch.keys.create("laptop", user_id=user.id, expires_at=soon)

    assert user in list(orch.users.list())
    assert orch.users.get(user.id) == user
    assert key.expires_at == soon
    assert [found.id for found in orch.keys.list(user_id=user.id)] == [key.id]
    with Orchestrator(server, key.key) as theirs:
        assert theirs.me()["user"]["id"] == user.id
        orch.keys.revoke(key.id)
        eventually(lambda: is_refused(theirs), 5)
    assert not orch.users.change(user.id, is_active=False).is_active


def test_an_agent_lives_and_ends(demo: ProjectClient, project: Project) -> None:
    agent = born(demo, project, current_task="read", short_term_memory={"page": 1}, session_id="s-1")
    assert (agent.status, agent.current_task, agent.short_term_memory) == ("idle", "read", {"page": 1})

    moves = [
        demo.agents.update(agent.id, status="working", current_task=None, if_version=1),
        demo.agents.pause(agent.id, reason="tea", owner="kettle", until=datetime.now(UTC) + timedelta(hours=1)),
        demo.agents.resume(agent.id, owner="kettle", reason="back"),
        demo.agents.terminate(agent.id, reason="done", mode="drain", deadline=5),
    ]
    closed = [demo.commands.wait(move, until="quiesced") for move in moves]

    assert {move.state for move in closed} == {"applied"}
    assert [move.verb for move in closed] == ["update", "pause", "resume", "terminate"]
    history = list(demo.agents.history(agent.id))
    assert [event.after for event in history] == ["idle", "working", "paused", "idle", "terminated"]
    assert [event.reason for event in history] == [None, None, "tea", "back", "done"]
    ended = demo.agents.get(agent.id)
    assert (ended.status, ended.session_id, ended.quiesced_by, ended.version) == ("terminated", None, "no_lease", 5)


def test_a_lease_is_taken_beaten_with_and_given_back(demo: ProjectClient, scout: Agent) -> None:
    lease = demo.agents.lease(scout.id, holder="host:1", ttl=20)
    assert (lease.epoch, lease.ttl, lease.directive) == (1, 20, "continue")

    told = demo.agents.beat(scout.id, epoch=1, status="working", current_task="read")
    assert told.directive == "continue"
    eventually(lambda: demo.agents.get(scout.id).status == "working")
    assert demo.agents.explain(scout.id)["lease"]["holder"] == "host:1"

    stranger = str(uuid4())
    beats = demo.agents.beat_many([{"agent_id": scout.id, "epoch": 1}, {"agent_id": stranger, "epoch": 1}])
    assert (beats[0]["told"]["directive"], beats[1]["error"]["code"]) == ("continue", "not_found")

    demo.agents.release(scout.id, epoch=1)
    with pytest.raises(Fenced):
        demo.agents.beat(scout.id, epoch=1)


@pytest.mark.parametrize("how", ["pause", "update"])
def test_the_second_stage_of_a_stop_is_waited_for_however_it_was_asked_for(
    demo: ProjectClient, scout: Agent, how: str
) -> None:
    demo.agents.lease(scout.id, holder="host:1")
    stop = demo.agents.pause(scout.id) if how == "pause" else demo.agents.update(scout.id, status="paused")

    with pytest.raises(Timeout, match="not quiesced"):
        demo.commands.wait(stop, until="quiesced", timeout=1)
    demo.agents.beat(scout.id, epoch=1, ack=True)

    assert demo.commands.wait(stop, until="quiesced").quiesced_by == "ack"


def test_nobody_waits_for_the_second_stage_of_a_stop_that_was_lifted(demo: ProjectClient, scout: Agent) -> None:
    demo.agents.lease(scout.id, holder="host:1")
    stop = demo.agents.pause(scout.id)
    demo.commands.wait(demo.agents.resume(scout.id))

    assert demo.commands.wait(stop, until="quiesced", timeout=5).quiesced_at is None


def test_a_server_that_holds_no_answers_is_asked_now_and_then(
    template: tuple[str, str], project: Project, tmp_path: Path
) -> None:
    asked: list[Any] = []
    with (
        serving(tmp_path / "web.log", ORCH_WAITERS="0") as url,
        httpx2.Client(event_hooks={"request": [asked.append]}) as http,
        Orchestrator(url, template[1], http_client=http) as orch,
    ):
        demo = orch.project(project.id)
        scout = born(demo, project)
        demo.agents.lease(scout.id, holder="host:1")
        stop = demo.commands.wait(demo.agents.pause(scout.id))
        before = len(asked)
        with pytest.raises(Timeout):
            demo.commands.wait(stop, until="quiesced", timeout=2)

    assert len(asked) - before <= 12  # the command and the agent, each half second


def test_usage_is_reported_counted_and_grouped(demo: ProjectClient, scout: Agent) -> None:
    entry = {"agent_id": scout.id, "report_id": "call-1", "model": "anvil", "input_tokens": 10, "cost": "0.25"}

    assert demo.report([entry]).accepted == 1
    again = demo.report([entry, entry | {"input_tokens": 11}])

    assert (again.accepted, again.duplicates, again.conflicts) == (0, 2, [1])
    eventually(lambda: demo.agents.get(scout.id).tokens_used == 10)
    [group] = demo.usage(since=datetime.now(UTC) - timedelta(hours=1))
    assert (group.group, group.entries, group.cost_incurred) == ("anvil", 1, Decimal("0.25"))
    assert demo.usage(until=datetime.now(UTC) - timedelta(hours=1)) == []
    assert demo.metrics().total_cost_incurred == demo.agents.metrics(scout.id).total_cost_incurred == Decimal("0.25")
    assert demo.metrics().by_status["idle"] == 1


def test_an_issue_is_made_assigned_and_closed(demo: ProjectClient, scout: Agent) -> None:
    issue = demo.issues.create("It leaks", body="Everywhere", assigned_agent_id=scout.id)

    assert demo.issues.get(issue.id) == issue
    assert list(demo.issues.list(assigned_agent_id=scout.id, status="open")) == [issue]
    assert demo.agents.get(scout.id).assigned_issues_count == 1
    changed = demo.issues.change(issue.id, status="closed", assigned_agent_id=None)
    assert (changed.status, changed.assigned_agent_id) == ("closed", None)


def test_lists_go_over_all_their_pages(demo: ProjectClient, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "PAGE", 2)
    sent = [demo.agents.spawn(f"scout-{number}", agent_type_id=project.type_id) for number in range(5)]
    for spawn in sent:
        demo.commands.wait(spawn)
    one = sent[0].agent_id
    for number in range(4):
        demo.commands.wait(demo.agents.update(one, current_task=f"job {number}"))

    newest_first = [spawn.agent_id for spawn in reversed(sent)]
    assert [agent.id for agent in demo.agents.list()] == newest_first
    assert [agent.id for agent in demo.agents.list(status="idle", q="scout-", type=project.type_id)] == newest_first
    assert [command.agent_id for command in demo.commands.list(verb="spawn")] == newest_first
    assert [event.version for event in demo.agents.history(one)] == [1, 2, 3, 4, 5]
    events = eventually(lambda: len(found := list(demo.events())) == 9 and found)  # a feed without gaps may lag
    assert len({event.cursor for event in events}) == 9


def test_a_queued_command_is_shown_and_taken_back(template: tuple[str, str], quiet: Project, tmp_path: Path) -> None:
    agent_id = quiet.born()
    with serving(tmp_path / "web.log") as url, Orchestrator(url, template[1]) as orch:
        demo = orch.project(quiet.id)
        pause = demo.agents.pause(agent_id)

        assert [command.id for command in demo.commands.list(state="queued", agent_id=agent_id)] == [pause.id]
        with pytest.raises(Timeout, match="queued"):
            demo.commands.wait(pause, timeout=0.1)
        assert demo.commands.cancel(pause.id).state == "cancelled"
        with pytest.raises(Conflict, match="cancelled"):
            demo.commands.wait(pause.id)
        with pytest.raises(Conflict):
            demo.commands.cancel(pause.id)


def test_the_books_are_verified(orch: Orchestrator) -> None:
    assert {found["violations"] for found in orch.verify()["invariants"]} == {0}

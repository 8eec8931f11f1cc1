"""The worker's log: each command it closes with its task, and those that came in bulk together."""

import json
from typing import Any

from tests.stage import WAIT, Project, Worker, eventually

Line = dict[str, Any]


def test_the_worker_logs_each_closed_command_with_its_task(project: Project, worker: Worker) -> None:
    agent = project.spawn()["id"]
    closed = project.command(project.send(agent, "resume")["id"], **WAIT)

    def logged() -> list[Line]:
        found = [line for line in worker.log.read_text().splitlines() if closed["id"] in line]
        return [json.loads(line) for line in found]

    (line,) = eventually(logged)
    assert (line["level"], line["event"], line["state"]) == ("info", "command_closed", "rejected")
    assert line["process"] == "worker"
    assert (line["command_id"], line["task_id"]) == (closed["id"], closed["task_id"])


def test_what_came_in_bulk_is_logged_together_by_its_state(worker: Worker, project: Project) -> None:
    agents = [project.spawn()["id"] for _ in range(3)]
    pauses = [{"verb": "pause", "agent_id": agent} for agent in agents]
    refused = {"verb": "resume", "agent_id": agents[0], "owner": "nobody"}
    sent = project.api.post(f"{project.path}/commands", {"commands": [*pauses, refused]}).json
    ids = [item["command_id"] for item in sent["items"]]

    def logged() -> dict[str, str]:
        found = [json.loads(line) for line in worker.log.read_text().splitlines() if "commands_closed" in line]
        states = {id_: line["state"] for line in found for id_ in line["command_ids"] if id_ in ids}
        return states if len(states) == len(ids) else {}

    assert eventually(logged) == dict.fromkeys(ids[:3], "applied") | {ids[3]: "rejected"}
    assert not any(f'"command_id": "{id_}"' in worker.log.read_text() for id_ in ids)

"""What ours is compared with, in the same run: the plain way, and the database by itself."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

from bench import singles
from bench.stack import Stack, another_database
from bench.world import Fleet, fleet, sql
from orchestrator.embedded import postgres_binary

AGENTS = 2_000
TRANSACTIONS = 8_000
CLIENTS = (1, 16)
PREFORK = (2, 4)

# One transition as a worker of one command each would make it, with everything prepared: nothing but the database.
_TRANSITION = """
\\set seq :first + :k * :clients + :client_id
\\set k :k + 1
BEGIN;
SELECT c.id AS command, c.agent_id AS agent FROM commands c WHERE project_id = :project AND seq = :seq \\gset
SELECT status AS before, version + 1 AS version FROM agents WHERE id = :agent FOR NO KEY UPDATE \\gset
UPDATE agents SET status = CASE status WHEN 'idle' THEN 'working' ELSE 'idle' END, version = :version,
    last_activity_at = now(), updated_at = now() WHERE id = :agent;
INSERT INTO events (agent_id, version, project_id, command_id, verb, before, after, changes, actor_type, at)
    VALUES (:agent, :version, :project, :command, 'work', :before, 'idle', '{}', 'system', now());
UPDATE commands SET state = 'applied', version = :version, closed_at = clock_timestamp() WHERE id = :command;
COMMIT;
"""
_MAIL = """
    INSERT INTO commands (id, project_id, agent_id, verb, payload, actor_type)
    SELECT gen_random_uuid(), project_id, id, 'update', '{}', 'system' FROM (
        SELECT project_id, id FROM agents CROSS JOIN generate_series(1, :rounds) WHERE project_id = :project
        ORDER BY generate_series, id) mail
"""


def plain(stack: Stack, seconds: float, prefork: Sequence[int] = PREFORK) -> dict[str, float]:
    """Single commands accepted and applied per second, with as many prefork processes as does it best."""
    with another_database(stack) as there:
        agents = fleet("plain", AGENTS)
        rates = {n: _plain(there, agents, n, seconds) for n in prefork}
    return {f"plain, {n} processes": rate for n, rate in rates.items()} | {"plain": max(rates.values())}


def _plain(stack: Stack, agents: Fleet, processes: int, seconds: float) -> float:
    with stack.workers(processes, "bench.plain", "plain"), stack.web("bench.plain:create_app()") as url:
        return singles.rate(stack, url, agents, seconds)


def pgbench(stack: Stack, clients: Sequence[int] = CLIENTS) -> dict[str, float]:
    """Transitions per second, by the number of clients."""
    with another_database(stack) as there:
        agents = fleet("pgbench", AGENTS)
        return dict(_pgbench(there, agents, clients))


def _pgbench(stack: Stack, agents: Fleet, clients_: Sequence[int]) -> Iterator[tuple[str, float]]:
    script = stack.home / "transition.sql"
    script.write_text(_TRANSITION)
    host = parse_qs(urlsplit(stack.server_url).query)["host"][0]
    place = ["-h", host, "-U", "postgres", "-n", "-M", "prepared", "-f", str(script)]
    for clients in clients_:
        number = TRANSACTIONS // (1 if clients > 1 else 2)
        sql(_MAIL, project=agents.project_id, rounds=number // AGENTS)
        (first,) = sql("SELECT min(seq) AS seq FROM commands WHERE state = 'queued'")
        given = {"first": first.seq, "k": 0, "clients": clients, "project": agents.project_id}
        variables = [word for name, value in given.items() for word in ("-D", f"{name}={value}")]
        load = ["-c", str(clients), "-j", "2", "-t", str(number // clients)]
        command = [str(postgres_binary("pgbench")), *place, *variables, *load, "yardstick"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"tps = ([\d.]+)", told)
        if found is None:
            raise RuntimeError(f"pgbench said something else: {told}")
        yield f"pgbench, {clients} client{'s' * (clients > 1)}", float(found[1])

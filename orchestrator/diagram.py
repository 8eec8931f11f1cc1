"""The life of an agent as a page: `docs/lifecycle.md`, drawn and told from the one table of moves."""

from pathlib import Path

from orchestrator.lifecycle import MOVES, Status, Verb, edges, reachable

PAGE = Path(__file__).parent.parent / "docs" / "lifecycle.md"

_BEGIN = """\
# The life of an agent

*Made by `make docs` from the table in `orchestrator/lifecycle.py`; a test compares the two.*

Every change of an agent's status, whoever asks for it, is one look-up in that table and one write with its event.
What is not drawn here is refused with 409 `invalid_transition`, and the refusal names what is possible now.

```mermaid
stateDiagram-v2
"""

_END = """
## Holds

An agent is paused as long as it has a hold. A pause places one, with `owner` (`manual` where nobody is named), `reason`
and `until`; a resume lifts that owner's.

- Each owner has at most one hold on an agent; a second pause by it is refused with 409 `invalid_transition`.
- A pause by another owner, and a resume while other holds remain, are events from paused to paused: the agent stays.
- A resume by an owner that has none, where others have, is refused with 409 `held`, which names them.
- When `until` has passed the system lifts the hold, within two seconds, by a command of its own that nobody can cancel.
- A PATCH places and lifts the manual hold. Terminate lifts them all.

## The two stages of a stop

A pause or a terminate is *applied* when the status has changed, and *quiesced* when the agent's process stands still,
or can no longer write. The agent and the commands that stopped it say since when (`quiesced_at`) and how that is known
(`quiesced_by`: ack, release, expiry or no_lease). Where no process holds the agent's lease both are one moment.

- The second stage is no event, and keeps the version: the agent has not moved.
- A stop that meets one under way joins it: the hardest `mode` and the earliest `deadline` count.
- When the last hold is lifted the agent goes on, whether or not its process has stood still; `quiesced_at` is empty
  again.
- A process that is gone leaves no agent at work: from working or waiting it is put to rest by the system, with a reason
  that begins with `lease_`.

[running.md](running.md) tells what processes do and are told.

## What is true of every move

- It raises the agent's `version` by one and writes one event with verb, before, after, actor and reason.
- It sets `updated_at`, and for an agent that is born already `last_activity_at` as well.
- With `If-Match: "<version>"` it happens only if the agent still has that version; else 412 `precondition_failed`.
- The door never judges a status: a command is accepted whatever the agent's state, and refused, if need be, when it is
  its turn. So two commands sent one after the other are judged one after the other.

A PATCH to the status the agent has succeeds and moves nothing; a PATCH that changes nothing at all writes no event and
keeps the version. A terminated agent accepts no PATCH, not even an empty one. Usage is counted in every status, after
terminate as well (the money was spent), and never changes it.
"""

_WORDS = {
    Verb.SPAWN: "The agent begins to exist: idle, version 1, with the fields it was spawned with.",
    Verb.WORK: "The agent takes up work, or goes on with it. A PATCH with `status: working`.",
    Verb.WAIT: "The agent waits for something in the middle of its work. A PATCH with `status: waiting`.",
    Verb.REST: "The agent has nothing to do. A PATCH with `status: idle`.",
    Verb.PAUSE: "Somebody has put the first hold on the agent. `POST …/pause`, or a PATCH with `status: paused`.",
    Verb.RESUME: "The last hold is lifted. `POST …/resume`, or a PATCH with `status: idle`; or its time is over.",
    Verb.TERMINATE: "The end: sets `terminated_at`, clears `current_task` and `session_id`, keeps counters, memory and"
    " assigned work items. `DELETE …`, or a PATCH with `status: terminated`. Nothing leads back.",
}


def render() -> str:
    """The page, as Markdown."""
    return _BEGIN + _drawing() + "```\n" + _matrix() + _told() + _END


def _drawing() -> str:
    arrows = [f"    {before or '[*]'} --> {after}: {verb}" for verb, before, after in edges()]
    return "\n".join([*arrows, f"    {Status.TERMINATED} --> [*]"]) + "\n"


def _matrix() -> str:
    head = f"| from | {' | '.join(Status)} |\n|---|{'---|' * len(Status)}\n"
    return f"\n## What can be reached\n\n{head}{''.join(map(_row, Status))}"


def _row(before: Status) -> str:
    cells = ["–" if after is before else "yes" if after in reachable(before) else "no" for after in Status]
    return f"| {before} | {' | '.join(cells)} |\n"


def _told() -> str:
    return "\n## The moves\n\n" + "".join(
        f"- **{verb}**, {_ways(moves)}. {_WORDS[verb]}\n" for verb, moves in MOVES.items()
    )


def _ways(moves: dict[Status | None, Status]) -> str:
    """As in: from idle or working to paused."""
    sources = [str(before) for before in moves if before is not None]
    (target,) = set(moves.values())
    return f"from {' or '.join(sources)} to {target}" if sources else f"to {target}"

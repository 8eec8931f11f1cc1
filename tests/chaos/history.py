"""A history: every request as its client saw it, every fault, and what the API showed at the end, when all was quiet.

In a folder: `client-N.jsonl` with a line when a request begins and one when it has been answered, `faults.jsonl`,
`final.json`, and `aim.json` with what had to happen. All times are nanoseconds of the machine's monotonic clock.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["ok", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Call:
    """One request; a retry is another one, with the same `key`.

    `op` is what was asked: spawn, pause, resume, update, terminate, cancel, bulk, by_filter, usage, lease, beat, beats
    (of many agents), release, get, list, found (a list by a filter), metrics, agent_metrics, stranger, and reuse (of
    another request's key). `agent` is whom it was about. `sent` has the `body`, and `if_match`, `wait` (seconds) and
    `command` (the one to cancel) where there were any. `answer` is the body of the answer; without one `status` and
    `t1` are None: whether it was done is unknown.
    """

    client: int
    op: str
    t0: int
    agent: str | None = None
    key: str | None = None
    sent: Mapping[str, Any] = field(default_factory=dict)
    t1: int | None = None
    status: int | None = None
    answer: Any = None

    @property
    def outcome(self) -> Outcome:
        """Done (or accepted), certainly without effect, or nobody knows."""
        if self.status is None or self.status >= 500:
            return "unknown"
        return "ok" if self.status < 300 else "refused"


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong on purpose, from when to when: at `healed` nothing is done to anybody any more. What was killed
    is not back by then: to come back is our programs' own work.

    `hit` is how many it concerned, and `target` of what: connections, keys, or a process and its number. One that hit
    nobody had no effect.
    """

    kind: str
    target: str
    t0: int
    healed: int
    hit: int = 1


@dataclass(frozen=True, slots=True)
class Final:
    """All that the API shows when nothing is on its way any more: agents, commands and events (by agent, oldest first)
    as it shows them, the project's metrics and its usage by model, the invariants that `GET /verify` found violated;
    and agent and version of each event as the project's feed brought them to those who followed it all the time, by
    page and by stream."""

    agents: list[dict[str, Any]] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    violated: list[str] = field(default_factory=list)
    feed: list[Sequence[Any]] = field(default_factory=list)
    stream: list[Sequence[Any]] = field(default_factory=list)
    usage: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class History:
    """What the checks judge; calls in the order in which they began. The faults are those that hit somebody; `missed`
    are those that did not, and excuse nothing."""

    calls: list[Call]
    faults: list[Fault]
    final: Final
    missed: list[Fault] = field(default_factory=list)


class Recorder:
    """Writes one client's file. A line is written before a request is sent, so that none is missing in the history."""

    def __init__(self, folder: Path, client: int) -> None:
        self._file = (folder / f"client-{client}.jsonl").open("a", buffering=1)
        self._client, self._count = client, 0

    def begin(self, call: Call) -> int:
        """Note that it is sent now; its number."""
        self._count += 1
        self._write({"number": self._count} | {k: v for k, v in asdict(call).items() if v is not None})
        return self._count

    def end(self, number: int, t1: int, status: int, answer: Any) -> None:
        """Note how it was answered."""
        self._write({"number": number, "t1": t1, "status": status, "answer": answer})

    def close(self) -> None:
        """No more."""
        self._file.close()

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")


def write(folder: Path, faults: list[Fault], final: Final) -> None:
    """Add what the clients do not write; the faults with those that hit nobody."""
    (folder / "faults.jsonl").write_text("".join(json.dumps(asdict(fault)) + "\n" for fault in faults))
    (folder / "final.json").write_text(json.dumps(asdict(final)))


def write_aim(folder: Path, wanted: Mapping[str, int], commands: int) -> None:
    """Note how often each kind of fault is to happen, and how many commands there are to be."""
    (folder / "aim.json").write_text(json.dumps({"wanted": dict(wanted), "commands": commands}))


def read_aim(folder: Path) -> tuple[Mapping[str, int], int]:
    """The same again; no fault and one command, where nothing was noted."""
    file = folder / "aim.json"
    aim = json.loads(file.read_text()) if file.exists() else {"wanted": {}, "commands": 1}
    return aim["wanted"], aim["commands"]


def is_whole(folder: Path) -> bool:
    """Whether there is a history in a folder, to its end."""
    return (folder / "faults.jsonl").exists() and (folder / "final.json").exists()


def read(folder: Path) -> History:
    """The history in a folder."""
    calls = [call for file in folder.glob("client-*.jsonl") for call in _calls(file)]
    faults = [Fault(**line) for line in _lines(folder / "faults.jsonl")]
    final = Final(**json.loads((folder / "final.json").read_text()))
    hit, missed = [one for one in faults if one.hit], [one for one in faults if not one.hit]
    return History(sorted(calls, key=lambda call: call.t0), hit, final, missed)


def _calls(file: Path) -> Iterator[Call]:
    begun: dict[int, dict[str, Any]] = {}
    for line in _lines(file):
        begun.setdefault(line.pop("number"), {}).update(line)
    return (Call(**given) for given in begun.values())


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    with file.open() as lines:
        yield from map(json.loads, lines)

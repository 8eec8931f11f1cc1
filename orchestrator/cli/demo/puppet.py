"""An agent's process in the demo: a real one, through the SDK, that does what it reads from its standard input.

Each line is a JSON object, `{"do": "work", "task": …}` and the like, and is answered with an empty line once it is
done.
Usage is reported by the thread that reads: so that a process which stands still can report, too.
"""

import json
import os
import sys
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from orchestrator.sdk import Orchestrator, Run

TTL = 8
STEP_SECONDS = 0.05
"""Between two checkpoints."""

Script = SimpleQueue[dict[str, Any] | None]


class Puppet:
    """Does the steps of a script, and comes to a checkpoint between any two moments, until it is told to be deaf."""

    def __init__(self, me: Run, script: Script) -> None:
        self._me, self._script = me, script
        self._task, self._waiting = ExitStack(), ExitStack()
        self._deaf = False

    def play(self) -> None:
        """Until the script ends, or the agent is terminated."""
        with self._task, self._waiting:
            while (step := self._next()) is not None:
                self._do(**step)
                _done()

    def _do(self, do: str, task: str | None = None) -> None:
        if do == "deaf":
            self._deaf = True
        elif do == "wait":
            self._waiting.enter_context(self._me.waiting())
        elif do == "work" and task is None:
            self._waiting.close()  # goes on with the task it was at
        else:
            self._task.close()
            if do == "work":
                self._task.enter_context(self._me.task(task))

    def _next(self) -> dict[str, Any] | None:
        while True:
            if not self._deaf:
                self._me.checkpoint()
            try:
                return self._script.get(timeout=STEP_SECONDS)
            except Empty:
                continue


def _read(me: Run, script: Script) -> None:
    """Until the demo closes our standard input, or is gone."""
    for line in sys.stdin:
        step = json.loads(line)
        if step["do"] != "report":
            script.put(step)
            continue
        for entry in step["entries"]:
            me.usage(**entry)
        me.flush()
        _done()
    script.put(None)


def _done() -> None:
    print(flush=True)


def main(agent: str, project: str) -> None:
    """Be this agent of the project, both named by their ids."""
    script: Script = SimpleQueue()
    with Orchestrator() as orch, orch.run_agent(agent, project=project, ttl=TTL) as me:
        Thread(target=_read, args=(me, script), daemon=True).start()
        _done()
        Puppet(me, script).play()
    sys.stdout.flush()
    os._exit(0)  # whatever the reading thread is at


if __name__ == "__main__":
    main(*sys.argv[1:])

"""An agent that is a plain loop: it works through jobs, reports what each used, and stops where it is told to.

    ORCH_PROJECT=demo python examples/plain_loop.py scout-03 researcher 100 0.05

The arguments: the agent's name, its type, how many jobs, and how many seconds each step of a job takes.
"""

import os
import sys
import time

from orchestrator.sdk import Orchestrator

STEPS = 3


def main(name: str, kind: str, jobs: int, seconds: float) -> None:
    """Work through the jobs."""
    project = os.environ.get("ORCH_PROJECT", "demo")
    with Orchestrator() as orch, orch.run_agent(name, project=project, type=kind, ttl=5) as me:
        print(f"agent {me.id}", flush=True)
        for job in range(jobs):
            with me.task(f"job {job}"):
                for step in range(STEPS):
                    me.checkpoint()  # blocks while the agent is paused; ends the block when it is terminated
                    time.sleep(seconds)  # here would be the call of a model
                    me.usage(provider="anvil", model="anvil-small", input_tokens=100, output_tokens=10, cost="0.001")
                    print(f"step {job}.{step}", flush=True)
        print("done", flush=True)
    print("ended", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))

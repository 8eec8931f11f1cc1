"""`python -m orchestrator.cli` is `orch`."""

from orchestrator.cli import main

main(prog_name="orch")

"""Python imports this at its start where this folder is on its path: in a campaign that plants a bug, never else."""

import os

if os.environ.get("ORCH_TESTING") and os.environ.get("ORCH_PLANTED"):
    from tests.chaos.planted import plant

    plant(os.environ["ORCH_PLANTED"])

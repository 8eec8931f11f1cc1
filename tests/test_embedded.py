"""What the embedded servers need of the machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes an account for PostgreSQL")

_MAKE = """
import pwd, sys
from orchestrator.embedded import make_account
print("ready", flush=True)
sys.stdin.readline()
make_account(sys.argv[1])
print(pwd.getpwnam(sys.argv[1]).pw_uid, flush=True)
"""


@pytest.fixture
def account() -> Iterator[str]:
    """The name of an account that there is not, and that is gone again afterwards."""
    name = f"orch-test-{uuid4().hex[:8]}"
    yield name
    subprocess.run(["userdel", name], check=True, capture_output=True)


def test_starts_at_once_on_a_new_machine_all_see_the_account_as_it_stays(account: str) -> None:
    makers = [_maker(account) for _ in range(4)]
    assert [maker.stdout.readline() for maker in makers] == ["ready\n"] * 4  # type: ignore[union-attr]

    for maker in makers:
        maker.stdin.write("\n")  # type: ignore[union-attr]
        maker.stdin.flush()  # type: ignore[union-attr]
    seen = {maker.communicate(timeout=30)[0] for maker in makers}

    assert len(seen) == 1  # `useradd`, run twice at once, shows the account with an id that it does not keep


def _maker(account: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _MAKE, account]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

"""Which servers' certificates are checked: everybody's but those that cannot have any."""

import pytest

from orchestrator.sdk.address import needs_certificates


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost", "HTTP://[::1]:8080", "http://127.1.2.3"])
def test_none_are_read_for_this_machine_without_tls(url: str) -> None:
    assert not needs_certificates(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1",
        "HTTPS://localhost",
        "https://orch.example",
        "http://orch.example",
        "http://127.0.0.1.example",
    ],
)
def test_all_others_are_checked_as_they_may_lie_behind_a_proxy_with_tls(url: str) -> None:
    assert needs_certificates(url)

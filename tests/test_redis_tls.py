"""Redis behind TLS: the door and Celery both take `rediss://`, and both look at the certificate."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from kombu.exceptions import OperationalError

from orchestrator.link import Link
from orchestrator.settings import settings
from tests.redis_server import OwnRedis
from workers import bell
from workers.app import app as celery

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that nobody has signed, its key in the same file."""
    made = tmp_path / "redis.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=redis", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(made), "-out", "-"]
    told = subprocess.run(command, check=True, capture_output=True)
    with made.open("ab") as file:
        file.write(told.stdout)
    return made


@pytest.fixture
def port(certificate: Path, own_redis: OwnRedis) -> Iterator[int]:
    """Where this test's Redis can be reached by TLS; the wheel's server itself was built without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    behind = own_redis.client.connection_pool.connection_kwargs["port"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=relay, args=(listener, context, behind), daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def relay(listener: socket.socket, context: ssl.SSLContext, behind: int) -> None:
    """Take connections until the listener is shut."""
    with suppress(OSError):
        while True:
            Thread(target=join, args=(listener.accept()[0], context, behind), daemon=True).start()


def join(plain: socket.socket, context: ssl.SSLContext, behind: int) -> None:
    """Carry what the two sides say, until one of them hangs up, as a client does that does not trust us."""
    with (
        suppress(OSError),
        context.wrap_socket(plain, server_side=True) as ours,
        socket.create_connection(("127.0.0.1", behind)) as theirs,
    ):
        back = Thread(target=carry, args=(theirs, ours), daemon=True)
        back.start()
        carry(ours, theirs)
        back.join()


def carry(source: socket.socket, sink: socket.socket) -> None:
    """One direction."""
    with suppress(OSError):
        while said := source.recv(65536):
            sink.sendall(said)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def address(own_redis: OwnRedis, port: int, options: str, patch: pytest.MonkeyPatch) -> str:
    """The address behind TLS as the settings hand it on."""
    password = own_redis.client.connection_pool.connection_kwargs["password"]
    patch.setenv("ORCH_REDIS_URL", f"rediss://:{password}@127.0.0.1:{port}/0{options}")
    return str(settings.__wrapped__().redis_url)


def publish(url: str) -> None:
    """One bell, tried once."""
    options = celery.conf.broker_transport_options | {"max_retries": 1, "interval_start": 0}
    with celery.connection_for_write(url, transport_options=options) as connection:
        bell.publish(connection=connection)


def length(url: str) -> int | None:
    """How many bells the door sees; None where it cannot look."""
    link = Link(url)
    with link.client:
        return link.attempt(lambda client: int(client.llen("commands")), otherwise=None)


@pytest.mark.parametrize(
    "options", ["?ssl_ca_certs={}", "?ssl_cert_reqs=required&ssl_ca_certs={}", "?ssl_cert_reqs=none"]
)
def test_with_a_certificate_they_trust_both_get_through(
    own_redis: OwnRedis, port: int, certificate: Path, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = address(own_redis, port, options.format(certificate), monkeypatch)

    publish(url)

    assert own_redis.client.llen("commands") == 1
    assert length(url) == 1


@pytest.mark.parametrize("options", ["", "?", "?ssl_cert_reqs=required"])
def test_a_certificate_that_nobody_has_signed_is_refused_by_both(
    own_redis: OwnRedis, port: int, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = address(own_redis, port, options, monkeypatch)

    with pytest.raises(OperationalError, match="certificate verify failed"):
        publish(url)

    assert own_redis.client.llen("commands") == 0
    assert length(url) is None

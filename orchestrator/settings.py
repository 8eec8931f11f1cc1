"""One frozen object read from the environment; it refuses to start when a value is wrong."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import platformdirs
from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_TLS_OPTION = r"(ssl_cert_reqs=(none|optional|required)|ssl_(ca_certs|certfile|keyfile)=[^&]+)"
_TLS_OPTIONS = re.compile(rf"{_TLS_OPTION}(&{_TLS_OPTION})*")
"""What may follow a `?`: options that the door and Celery read alike. Over any other, one of the two would stumble."""


class SettingsError(SystemExit):
    """A value in the environment is wrong; the process ends with one sentence per value."""


def _database_url(url: str | None) -> str | None:
    if url is None:
        return None
    if not url.startswith("postgresql+psycopg://"):
        raise ValueError("must begin with postgresql+psycopg://")
    try:
        from sqlalchemy import exc, make_url  # noqa: PLC0415  # slow to import, and most command lines have no such URL
        from sqlalchemy.dialects.postgresql import psycopg  # noqa: PLC0415

        options = make_url(url).query
        psycopg.dialect().create_connect_args(make_url(url))  # type: ignore[no-untyped-call]
    except ModuleNotFoundError:
        return url  # a client's machine: what serves has the drivers, and looks at its URL itself
    except (ValueError, exc.ArgumentError):
        raise ValueError("cannot be read; write postgresql+psycopg://user:password@host:5432/database") from None
    if options:
        _look_at_options(options)
    return url


def _look_at_options(options: Mapping[str, Any]) -> None:
    """Raises ValueError over those which the driver itself refuses, with an error that nobody expects there."""
    from psycopg import pq  # noqa: PLC0415

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name in options.keys() - known:
        raise ValueError(f"has an option that there is not: {name}; leave it out, or correct its name")
    if not re.fullmatch(r"-?\d{0,9}", str(options.get("connect_timeout", "")), re.ASCII):
        raise ValueError("has a connect_timeout that is no whole number of seconds; write connect_timeout=10")


def _redis_url(url: str | None) -> str | None:
    if url is None:
        return None
    if not url.startswith(("redis://", "rediss://")):
        raise ValueError("must begin with redis://, or with rediss:// for TLS")
    if not _is_whole(url):
        raise ValueError("cannot be read; write redis://:password@host:6379/0, with %23 for a # in the password")
    address, _, options = url.partition("?")
    if options and not (url.startswith("rediss:") and _TLS_OPTIONS.fullmatch(options)):
        raise ValueError(
            "can have no options but these, with rediss://: ssl_cert_reqs (none, optional or required), "
            "ssl_ca_certs, ssl_certfile, ssl_keyfile"
        )
    if url.startswith("rediss:") and not options:
        return f"{address}?ssl_cert_reqs=required"  # without options Celery would not look at the certificate
    return url


def _flower_url(url: str | None) -> str | None:
    if url is not None and not re.fullmatch(r"https?://([^/@\s]+@)?[^/@\s]+", url):
        raise ValueError("must be like http://user:password@127.0.0.1:5555, without a path")
    return url


def _without_brackets(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def _failpoints(folder: Path | None, info: ValidationInfo) -> Path | None:
    if folder is not None and not info.data.get("testing"):
        raise ValueError("is for tests alone; leave it unset")
    return folder


def _is_whole(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname and parts.port != 0 and re.fullmatch("(/[0-9]*)?", parts.path) and "#" not in url)
    except ValueError:  # a port that is none, half a pair of brackets
        return False


def _limits(value: Any) -> Any:
    """Decoded here and not by pydantic-settings, whose failure would be a traceback."""
    try:
        limits = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        limits = None
    if not isinstance(limits, dict) or not all(isinstance(words, str) for words in limits.values()):
        raise ValueError('must be a JSON object such as {"spawn": "20/minute"}')
    return limits


class Settings(BaseSettings):
    """Every setting, its default and its unit; each is read from `ORCH_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="ORCH_", frozen=True, extra="ignore", env_ignore_empty=True)

    home: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("orch"))
    )
    """Where the embedded servers keep their data and the first start puts `admin.key`. Absolute: PostgreSQL may run in
    another folder, and libpq takes what does not begin with a slash for a host's name."""
    host: Annotated[str, AfterValidator(_without_brackets)] = Field(
        default="127.0.0.1", pattern=r"^\S+$", description="an address of this machine"
    )
    port: int = Field(default=8080, ge=1, le=65535)
    flower_port: int = Field(default=5555, ge=0, le=65535)
    """0 switches Flower off."""
    flower_url: Annotated[str | None, AfterValidator(_flower_url)] = Field(default=None, repr=False)
    """Where the console finds Flower, whose `--url_prefix` is flower; `orch up` sets it."""
    web_processes: int = Field(default=1, ge=1, le=64)
    web_threads: int = Field(default=16, ge=1, le=256)
    web_hosts: int = Field(default=1, ge=1, le=1_000)
    """Hosts, or containers, with as many web processes each: they share the limits while Redis is away."""
    worker_processes: int = Field(default=2, ge=1, le=64)
    default_wait: float = Field(default=0, ge=0, le=30)
    """Seconds a mutation waits for its command when the request has no `Prefer`."""
    waiters: int = Field(default=12, ge=0, le=10_000)
    """How many requests of one web process may wait at once; above it the answer is 202 at once."""
    streams: int = Field(default=500, ge=0, le=10_000)
    """How many event streams one web process serves; above it the answer is 503."""
    limits: Annotated[dict[str, str], NoDecode, BeforeValidator(_limits)] = Field(default_factory=dict)
    """Rate limits that differ from the defaults: action → "20/minute" or "off"; "*" for all the others."""
    pulse: Path | None = None
    """A folder in which a worker notes when it last took a message; each worker has its own."""
    deaf_after: float = Field(default=45, ge=3, le=3600)
    """Seconds after which a worker that takes nothing, though something waits for it, is started again."""
    trusted_proxies: int = Field(default=0, ge=0, le=10)
    """How many proxies in front are trusted to tell the client's address in X-Forwarded-For, and in X-Forwarded-Proto
    whether it speaks TLS."""
    log_level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error"
    )
    database_url: Annotated[str | None, AfterValidator(_database_url)] = Field(default=None, repr=False)
    redis_url: Annotated[str | None, AfterValidator(_redis_url)] = Field(default=None, repr=False)
    testing: bool = False
    """Whether this is a test of the system itself, which may break it on purpose."""
    failpoints: Annotated[Path | None, AfterValidator(_failpoints)] = Field(default=None, repr=False)
    """Where a test says what is to go wrong."""


def address(host: str, port: int) -> str:
    """Both in one, as URLs have them: an address of IPv6 is in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@cache
def settings() -> Settings:
    """The settings of this process, read once; ends the process when one of them is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(map(_sentence, error.errors()))) from None


def _sentence(error: ErrorDetails) -> str:
    """What to write instead; with the value itself only where it cannot hold a password."""
    name = str(error["loc"][0])
    field = Settings.model_fields[name]
    ours = error.get("ctx", {}).get("error")
    must = str(ours or f"must be {field.description or _range(field)}")
    return f"ORCH_{name.upper()} {must}" + (f", not {error['input']!r}" if field.repr else "")


def _range(field: FieldInfo) -> str:
    [least] = [bound.ge for bound in field.metadata if isinstance(bound, Ge)]
    [most] = [bound.le for bound in field.metadata if isinstance(bound, Le)]
    return f"a {'whole ' * (field.annotation is int)}number from {least} to {most}"

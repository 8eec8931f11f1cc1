"""One frozen object read from the environment; it refuses to start when a value is wrong."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import platformdirs
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]


class SettingsError(SystemExit):
    """A value in the environment is wrong; the process ends with one sentence per value."""


def _psycopg_url(url: str | None) -> str | None:
    if url is not None and not url.startswith("postgresql+psycopg://"):
        raise ValueError("must begin with postgresql+psycopg://")
    return url


def _redis_url(url: str | None) -> str | None:
    if url is not None and not re.match(r"(redis|rediss|redis\+socket|unix)://", url):
        raise ValueError("must begin with redis://, rediss:// or redis+socket://")
    return url


def _json(value: Any) -> Any:
    """Decoded here and not by pydantic-settings, whose failure would be a traceback."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError('must be a JSON object such as {"spawn": "20/minute"}') from None


class Settings(BaseSettings):
    """Every setting, its default and its unit; each is read from `ORCH_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="ORCH_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: Path(platformdirs.user_data_dir("orch")))
    """Where the embedded servers keep their data and the first start puts `admin.key`."""
    host: str = "127.0.0.1"
    port: Port = 8080
    flower_port: Port = 5555
    """0 switches Flower off."""
    web_processes: int = Field(default=1, ge=1, le=64)
    web_threads: int = Field(default=16, ge=1, le=256)
    worker_processes: int = Field(default=2, ge=1, le=64)
    default_wait: float = Field(default=0, ge=0, le=30)
    """Seconds a mutation waits for its command when the request has no `Prefer`."""
    waiters: int = Field(default=12, ge=0, le=10_000)
    """How many requests of one web process may wait at once; above it the answer is 202 at once."""
    limits: Annotated[dict[str, str], NoDecode, BeforeValidator(_json)] = Field(default_factory=dict)
    """Rate limits that differ from the defaults: action → "20/minute" or "off"; "*" for all the others."""
    trusted_proxies: int = Field(default=0, ge=0, le=10)
    """How many proxies in front are trusted to tell the client's address in X-Forwarded-For."""
    log_level: Annotated[str, Field(pattern=r"^(debug|info|warning|error)$")] = "info"
    database_url: Annotated[str | None, AfterValidator(_psycopg_url)] = None
    redis_url: Annotated[str | None, AfterValidator(_redis_url)] = None


@cache
def settings() -> Settings:
    """The settings of this process, read once; ends the process when one of them is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [f"ORCH_{str(e['loc'][0]).upper()}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise SettingsError("\n".join(lines)) from None

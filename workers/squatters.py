"""Keys of Redis that have the names of Celery's and hold something else: all messages would stop at one."""

from typing import Any

from orchestrator import logs
from orchestrator.link import link
from orchestrator.pulse import QUEUES

KINDS = dict.fromkeys(QUEUES, "list") | {
    "unacked": "hash",
    "unacked_index": "zset",
    "unacked_mutex": "string",
    "_kombu.binding_deadlines": "zset",
    "_kombu.binding.commands": "set",
    "_kombu.binding_permanent.commands": "set",
    "_kombu.binding.celery.pidbox": "set",
}
"""What a worker writes to, and of which kind it is."""

log = logs.logger("worker")


def set_aside() -> None:
    """Rename each that is of another kind. Nothing is deleted: it may be somebody's who uses this Redis as well."""
    link().attempt(_set_aside, otherwise=None)


def _set_aside(client: Any) -> None:
    for key, kind in KINDS.items():
        found = client.type(key).decode()
        if found not in {kind, "none"}:
            client.rename(key, f"{key}.set-aside")
            log.error("key_set_aside", key=key, kind=found, now=f"{key}.set-aside")

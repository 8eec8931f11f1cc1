"""`orch user` and `orch key`: who may call, and with what."""

from typing import Any

import click

from orchestrator.cli.client import named
from orchestrator.cli.session import Session, command

KEYS = ("id", "name", "prefix", "user_id", "expires_at", "created_at")


@click.group()
def user() -> None:
    """Make users."""


@user.command("create")
@click.argument("email")
@click.option("--superuser", is_flag=True, help="May see and do everything.")
@command
def create_user(session: Session, email: str, superuser: bool) -> None:
    """Make a user; superusers only. `orch key create --user` gives it a key."""
    session.show(session.client.post("/users", {"email": email, "is_superuser": superuser}))


@click.group()
def key() -> None:
    """Make, list and revoke API keys."""


@key.command("create")
@click.argument("name")
@click.option("--user", "owner", help="Whose, by e-mail address or id; your own where not given.")
@click.option("--expires-at", metavar="TIME", help="When it ends, such as 2030-01-31T12:00:00Z.")
@command
def create_key(session: Session, name: str, owner: str | None, expires_at: str | None) -> None:
    """Make an API key. It is shown this once."""
    body: dict[str, Any] = {"name": name}
    body |= {"user_id": session.user_id(owner)} if owner else {}
    body |= {"expires_at": expires_at} if expires_at else {}
    session.show(session.client.post_secret("/keys", body))


@key.command("ls")
@click.option("--user", "owner", help="Whose, by e-mail address or id; your own where not given.")
@command
def list_keys(session: Session, owner: str | None) -> None:
    """List living keys, newest first, without their secrets."""
    user_id = session.user_id(owner) if owner else None
    session.show_all(list(session.client.pages("/keys", None, user_id=user_id)), KEYS)


@key.command("revoke")
@click.argument("key_id", metavar="KEY_ID")
@command
def revoke_key(session: Session, key_id: str) -> None:
    """End a key's life, within a second everywhere. Name it by its id, never by its secret."""
    key_id = named("key", key_id)
    session.client.delete(f"/keys/{key_id}")
    session.show({"id": key_id, "revoked": True})

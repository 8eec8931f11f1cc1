"""`orch project` and `orch type`: what agents belong to, and what kinds of them there are."""

from typing import Any

import click

from orchestrator.cli.session import Session, command

PROJECTS = ("id", "slug", "name", "status", "created_at")
KINDS = ("id", "slug", "name", "is_active", "created_at")


@click.group()
def project() -> None:
    """Make and list projects."""


@project.command("create")
@click.argument("name")
@click.option("--slug", help="Its short name; made from the name where none is given.")
@click.option("--owner", help="Its owner, by e-mail address or id; superusers only.")
@command
def create_project(session: Session, name: str, slug: str | None, owner: str | None) -> None:
    """Make a project, your own."""
    body: dict[str, Any] = {"name": name} | ({"slug": slug} if slug else {})
    session.show(session.client.post("/projects", body | ({"owner_id": session.user_id(owner)} if owner else {})))


@project.command("ls")
@click.option("--limit", type=click.IntRange(1), help="At most so many; all of them where not given.")
@command
def list_projects(session: Session, limit: int | None) -> None:
    """List the projects you may see, newest first."""
    session.show_all(list(session.client.pages("/projects", limit)), PROJECTS)


@click.group("type")
def kind() -> None:
    """Make and list agent types."""


@kind.command("create")
@click.argument("name")
@click.option("--slug", help="Its short name; made from the name where none is given.")
@click.option("--inactive", is_flag=True, help="Closed to new agents.")
@command
def create_type(session: Session, name: str, slug: str | None, inactive: bool) -> None:
    """Make an agent type; superusers only."""
    body = {"name": name, "is_active": not inactive} | ({"slug": slug} if slug else {})
    session.show(session.client.post("/agent-types", body))


@kind.command("ls")
@click.option("--limit", type=click.IntRange(1), help="At most so many; all of them where not given.")
@command
def list_types(session: Session, limit: int | None) -> None:
    """List the agent types, newest first."""
    session.show_all(list(session.client.pages("/agent-types", limit)), KINDS)

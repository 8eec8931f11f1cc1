"""`orch events` and `orch agent watch`: what happened, and what happens."""

from itertools import islice
from typing import Any

import click
from rich.text import Text

from orchestrator.cli import feed, outlet, render
from orchestrator.cli.agents import STATUSES
from orchestrator.cli.client import named
from orchestrator.cli.session import Session, command, in_project, in_projects

COLUMNS = ("at", "agent_id", "verb", "after", "before", "reason", "version")

TERMINATED = "terminated"


@click.command()
@in_projects
@click.option("--agent", "agent_id", metavar="AGENT", help="Only what happened to this agent.")
@click.option("--verb", help="Only what this verb did, such as pause.")
@click.option("--status", type=click.Choice(STATUSES), help="Only what left an agent in this status.")
@click.option("--after", metavar="CURSOR", help="Only what came after the event with this cursor.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many; not with -f.")
@click.option("-f", "--follow", is_flag=True, help="What happens from now on (or after CURSOR), until Ctrl-C.")
@command
def events(
    session: Session,
    project: str | None,
    agent_id: str | None,
    after: str | None,
    limit: int,
    follow: bool,
    **wanted: Any,
) -> None:
    """Show what happened, oldest first, or what happens, as it happens."""
    path = f"{session.project(project)}/events" if project else "/events"
    wanted["agent_id"] = agent_id and named("agent", agent_id)
    if follow:
        if project and agent_id:
            session.client.get(f"{session.project(project)}/agents/{wanted['agent_id']}")  # or it would be waited for
        for event in feed.follow(session.client, path, after, **wanted):
            tell(session, event)
    else:
        found = session.client.pages(path, limit, cursor="after", begin=after, **wanted)
        session.show_all(list(found), COLUMNS)


@click.command()
@click.argument("agent_id", metavar="AGENT")
@in_project
@command
def watch(session: Session, agent_id: str, project: str) -> None:
    """Show what happens to an agent, as it happens, until it is terminated."""
    place = session.project(project)
    here = feed.here(session.client, f"{place}/events")  # before the look: nothing is to happen in between
    agent = session.client.get(f"{place}/agents/{named('agent', agent_id)}")
    outlet.say(f"{agent['name']} is {agent['status']}, at version {agent['version']}.")
    if agent["status"] == TERMINATED:
        return
    for event in feed.follow(session.client, f"{place}/events", here, agent_id=agent["id"]):
        if event["version"] > agent["version"]:
            tell(session, event)
            if event["after"] == TERMINATED:
                return


def tell(session: Session, event: dict[str, Any]) -> None:
    """An event in a line: as JSON, or for people."""
    with outlet.printing():
        if session.output == "id":
            print(event["agent_id"])
        elif session.as_json:
            print(render.dump(event, indent=None))
        else:
            render.console().print(line(event))


def line(event: dict[str, Any]) -> Text:
    """When, to whom, from where to where, by whom and why."""
    made = Text.assemble(render.cell("at", event["at"]), "  ", event["agent_id"], "  ", f"{event['verb']:<9}  ")
    if event["before"] != event["after"]:
        made.append_text(
            Text.assemble(render.cell("before", event["before"]), " → ", render.cell("after", event["after"]))
        )
    else:
        made.append(", ".join(islice(event["changes"], 4)) or "–")
    if event["reason"]:
        reason = render.visible(event["reason"]).replace("\n", "\\n")  # another line would look like another event
        made.append(f"  “{reason}”", style="dim")
    return made

"""The two surfaces: each operation stands here once for the client that waits, and once for asyncio."""

from orchestrator.sdk import fleet, issues, tenancy, world
from orchestrator.sdk.binding import Part, all_later, all_now, followed_later, followed_now, later, now, placed


class Projects(Part):
    """Projects."""

    list = all_now(world.list_projects)
    create = now(world.create_project)
    get = now(world.get_project)
    change = now(world.change_project)


class AsyncProjects(Part):
    """Projects."""

    list = all_later(world.list_projects)
    create = later(world.create_project)
    get = later(world.get_project)
    change = later(world.change_project)


class Types(Part):
    """Kinds of agents."""

    list = all_now(world.list_types)
    create = now(world.create_type)
    get = now(world.get_type)
    change = now(world.change_type)


class AsyncTypes(Part):
    """Kinds of agents."""

    list = all_later(world.list_types)
    create = later(world.create_type)
    get = later(world.get_type)
    change = later(world.change_type)


class Users(Part):
    """Users."""

    list = all_now(world.list_users)
    create = now(world.create_user)
    get = now(world.get_user)
    change = now(world.change_user)


class AsyncUsers(Part):
    """Users."""

    list = all_later(world.list_users)
    create = later(world.create_user)
    get = later(world.get_user)
    change = later(world.change_user)


class Keys(Part):
    """API keys."""

    list = all_now(world.list_keys)
    create = now(world.create_key)
    revoke = now(world.revoke_key)


class AsyncKeys(Part):
    """API keys."""

    list = all_later(world.list_keys)
    create = later(world.create_key)
    revoke = later(world.revoke_key)


class Feed(Part):
    """What happened, and happens, in all projects."""

    list = all_now(world.list_events)
    follow = followed_now(world.follow_events)


class AsyncFeed(Part):
    """What happened, and happens, in all projects."""

    list = all_later(world.list_events)
    follow = followed_later(world.follow_events)


class Agents(Part):
    """A project's agents. A mutation answers with its command; `commands.wait` waits for it."""

    list = all_now(placed(fleet.list_agents))
    get = now(placed(fleet.get_agent))
    spawn = now(placed(fleet.spawn))
    update = now(placed(fleet.update))
    pause = now(placed(fleet.pause))
    resume = now(placed(fleet.resume))
    terminate = now(placed(fleet.terminate))
    explain = now(placed(fleet.explain))
    metrics = now(placed(fleet.agent_metrics))
    history = all_now(placed(fleet.history))
    lease = now(placed(tenancy.lease))
    beat = now(placed(tenancy.beat))
    beat_many = now(placed(tenancy.beat_many))
    release = now(placed(tenancy.release))


class AsyncAgents(Part):
    """A project's agents. A mutation answers with its command; `commands.wait` waits for it."""

    list = all_later(placed(fleet.list_agents))
    get = later(placed(fleet.get_agent))
    spawn = later(placed(fleet.spawn))
    update = later(placed(fleet.update))
    pause = later(placed(fleet.pause))
    resume = later(placed(fleet.resume))
    terminate = later(placed(fleet.terminate))
    explain = later(placed(fleet.explain))
    metrics = later(placed(fleet.agent_metrics))
    history = all_later(placed(fleet.history))
    lease = later(placed(tenancy.lease))
    beat = later(placed(tenancy.beat))
    beat_many = later(placed(tenancy.beat_many))
    release = later(placed(tenancy.release))


class Issues(Part):
    """A project's work items."""

    list = all_now(placed(issues.list_issues))
    create = now(placed(issues.create_issue))
    get = now(placed(issues.get_issue))
    change = now(placed(issues.change_issue))


class AsyncIssues(Part):
    """A project's work items."""

    list = all_later(placed(issues.list_issues))
    create = later(placed(issues.create_issue))
    get = later(placed(issues.get_issue))
    change = later(placed(issues.change_issue))


class Books(Part):
    """What a project used, and what happened in it."""

    metrics = now(placed(fleet.metrics))
    usage = now(placed(fleet.usage))
    report = now(placed(fleet.report))
    events = all_now(placed(fleet.events))
    follow = followed_now(placed(fleet.follow))


class AsyncBooks(Part):
    """What a project used, and what happened in it."""

    metrics = later(placed(fleet.metrics))
    usage = later(placed(fleet.usage))
    report = later(placed(fleet.report))
    events = all_later(placed(fleet.events))
    follow = followed_later(placed(fleet.follow))

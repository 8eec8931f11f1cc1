"""What can be said of a command, who sent it, a project and a work item. (An agent's statuses are in lifecycle.)"""

from enum import StrEnum


class State(StrEnum):
    """What has become of a command; all but queued are closed."""

    QUEUED = "queued"
    APPLIED = "applied"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    DEAD = "dead"


class ActorType(StrEnum):
    """Who sent a command: a user, an agent's own process by its beat, or the system itself."""

    USER = "user"
    AGENT = "agent"
    SYSTEM = "system"


class KeyKind(StrEnum):
    """What a secret is good for: an API key, a browser's session, or the beginning of one."""

    KEY = "key"
    SESSION = "session"
    LINK = "link"


class LeaseEnd(StrEnum):
    """How a lease ended; a fence is a stop that did not wait for the process."""

    RELEASE = "release"
    EXPIRY = "expiry"
    FENCE = "fence"


class ProjectStatus(StrEnum):
    """An archived project takes no spawns; everything else goes on."""

    ACTIVE = "active"
    ARCHIVED = "archived"


class IssueStatus(StrEnum):
    """Where a work item stands."""

    OPEN = "open"
    IN_PROGRESS = "in_progress"
    IN_REVIEW = "in_review"
    BLOCKED = "blocked"
    CLOSED = "closed"

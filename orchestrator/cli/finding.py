"""What a check found: fine, worth knowing, or to be mended."""

from typing import NamedTuple


class Finding(NamedTuple):
    """One line of `orch doctor`: about what, how it stands (ok, warn, fail), what was seen, and what to do."""

    what: str
    state: str
    says: str
    advice: str


def ok(what: str, says: str) -> Finding:
    """All is well."""
    return Finding(what, "ok", says, "")


def warn(what: str, says: str, advice: str) -> Finding:
    """It works, but somebody should know."""
    return Finding(what, "warn", says, advice)


def fail(what: str, says: str, advice: str = "") -> Finding:
    """It does not work."""
    return Finding(what, "fail", says, advice)

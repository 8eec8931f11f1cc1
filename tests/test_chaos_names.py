"""What the judge of the campaigns finds in names that are to be one agent's alone; histories made by hand."""

from typing import Any

import pytest

from tests.chaos.history import Call
from tests.chaos.tales import Tale


def _named(tale: Tale, t0: float, key: str, t1: float | None = None, **body: Any) -> Call:
    """A spawn under the name that all of these are to have alone."""
    return tale.ask("spawn", t0, t1, key=key, body={"name": "one", "unique_name": True} | body)


@pytest.mark.parametrize(("body", "found"), [({"unique_name": False}, False), ({"name": "two"}, False), ({}, True)])
def test_two_who_were_to_have_a_name_alone_are_found(body: dict[str, Any], found: bool) -> None:
    tale = Tale()
    _named(tale, 1, "first")
    _named(tale, 2, "second", **body)

    assert tale.accused() == ({"names"} if found else set())


def test_a_name_is_free_again_when_its_agent_ends_or_has_another() -> None:
    tale = Tale()
    first = _named(tale, 1, "first").answer["agent_id"]
    tale.ask("terminate", 2, agent=first, key="end", body={})
    second = _named(tale, 3, "second").answer["agent_id"]
    tale.ask("update", 4, agent=second, key="rename", body={"name": "two"})
    _named(tale, 5, "third")

    assert tale.accused() == set()


@pytest.mark.parametrize(("sent", "found"), [(2.5, False), (5, True)])
def test_of_two_spawns_that_overlap_either_may_have_been_the_first(sent: float, found: bool) -> None:
    tale = Tale()
    first = _named(tale, 1, "first", 3).answer["agent_id"]
    _named(tale, 2, "second", 4)

    tale.ask("terminate", sent, agent=first, key="end", body={})

    assert tale.accused() == ({"names"} if found else set())


@pytest.mark.parametrize(("other", "unique", "found"), [(True, True, False), (False, True, True), (True, False, True)])
def test_a_name_is_refused_only_where_it_was_asked_for(other: bool, unique: bool, found: bool) -> None:
    tale = Tale()
    if other:
        _named(tale, 1, "first", unique_name=False)
    late = _named(tale, 3, "second", unique_name=unique)
    agent = late.answer["agent_id"]

    tale.change(late, status=409, answer={})
    tale.final.commands.remove(tale.command("second"))

    assert agent in tale.final.events
    assert ("refused" in tale.accused()) == found

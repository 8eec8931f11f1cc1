"""What the judge of the campaigns finds in small histories made by hand; and their odd neighbours, which are right."""

from tests.chaos.tales import Tale


def test_a_version_that_was_shown_before_its_command_was_sent_is_found() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    tale.ask("pause", 10, agent=agent, key="pause", body={})
    look = tale.ask("get", 12, agent=agent)
    assert tale.accused() == set()

    tale.change(look, t0=4, t1=5)

    assert tale.accused() == {"order"}


def test_a_command_that_becomes_a_version_beneath_one_that_was_shown_is_found() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    beneath = tale.ask("pause", 10, agent=agent, key="beneath", body={})
    above = tale.ask("resume", 11, agent=agent, key="above", body={})
    look = tale.ask("get", 12, agent=agent)
    tale.change(above, t0=1, t1=13)
    tale.unanswered(beneath)
    assert tale.accused() == set()

    tale.change(look, t0=4, t1=5)

    assert tale.accused() == {"order"}


def test_a_refusal_as_of_a_version_that_was_known_to_be_over_is_found() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    early = tale.ask("resume", 1, 20, agent=agent, key="early", body={})
    tale.unanswered(tale.ask("pause", 2, agent=agent, key="pause", body={}))
    tale.ask("get", 4, 5, agent=agent)
    assert tale.accused() == set()

    tale.change(early, t0=10)

    assert tale.accused() == {"order"}


def test_a_look_that_overlaps_a_command_may_show_it_or_not() -> None:
    tale = Tale()
    agent = tale.spawn(0)
    pause = tale.ask("pause", 2, 8, agent=agent, key="pause", body={})
    tale.ask("get", 3, 4, agent=agent)
    again = tale.ask("pause", 9, agent=agent, key="pause", body={})

    tale.unanswered(pause)

    assert again.answer["id"] == pause.answer["id"]
    assert tale.accused() == set()

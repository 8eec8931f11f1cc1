"""Which columns of a table fit, and how wide each of them is."""

from collections.abc import Sequence
from typing import NamedTuple

GAP = 2
"""Between two columns."""


class Wish(NamedTuple):
    """What a column needs to be readable, and what it takes to break none of its lines."""

    least: int
    best: int


def fit(wishes: Sequence[Wish], width: int) -> dict[int, int]:
    """The widths of the columns that fit, by their places. The first is always there; of the others each is that has
    room for its least beside those before it. What is left goes to all that can use it, alike."""
    widths = {0: min(wishes[0].least, width)}
    left = width - widths[0]
    for place, wish in enumerate(wishes[1:], 1):
        if wish.least + GAP <= left:
            widths[place] = wish.least
            left -= wish.least + GAP
    modest_first = sorted(widths, key=lambda place: wishes[place].best - widths[place])
    for n, place in enumerate(modest_first):
        more = min(wishes[place].best - widths[place], left // (len(widths) - n))
        widths[place] += more
        left -= more
    return widths

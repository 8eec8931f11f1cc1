"""The items of a list of commands: each is read by itself, and refused by itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, ValidationError, WithJsonSchema
from uuid_utils.compat import uuid7

from orchestrator.errors import Invalid, Problem, Violation
from orchestrator.fields import Body, parse_uuid, violations
from orchestrator.lifecycle import COMMANDS, Verb
from orchestrator.orders import ORDERS, Order

AT_MOST = 1_000

_ITEM_SCHEMA = {
    "type": "object",
    "required": ["verb"],
    "properties": {
        "verb": {"enum": [verb.value for verb in COMMANDS]},
        "agent_id": {"type": "string", "format": "uuid", "description": "Of every verb but spawn."},
    },
    "additionalProperties": True,
    "description": "A verb, the agent, and what the verb's own endpoint takes.",
}


class Bulk(Body):
    """Up to 1,000 commands, each with its verb, its agent and what the verb's own endpoint takes."""

    commands: Annotated[list[Annotated[Any, WithJsonSchema(_ITEM_SCHEMA)]], Field(min_length=1, max_length=AT_MOST)]


@dataclass(frozen=True, slots=True)
class Letter:
    """One item that could be read: its place in the list, its own id, its agent's, and what is asked."""

    index: int
    command_id: UUID
    agent_id: UUID
    order: Order


def read(items: Sequence[Any]) -> tuple[list[Letter], dict[int, Problem]]:
    """Those that can be read, in order, and what is wrong with each of the others, by its index."""
    letters: list[Letter] = []
    refused: dict[int, Problem] = {}
    for index, item in enumerate(items):
        try:
            letters.append(_letter(index, item))
        except ValidationError as error:
            refused[index] = Invalid(*violations(error))
        except Problem as problem:
            refused[index] = problem
    return letters, refused


def _letter(index: int, item: Any) -> Letter:
    if not isinstance(item, dict):
        raise Invalid(Violation("must be an object with a verb"))
    given = dict(item)
    verb = given.pop("verb", None)
    if verb not in COMMANDS:
        raise Invalid(Violation(f"must be one of {', '.join(COMMANDS)}", "verb"))
    agent_id = uuid7() if verb == Verb.SPAWN else _agent_id(given.pop("agent_id", None))
    return Letter(index, uuid7(), agent_id, ORDERS[Verb(verb)].model_validate(given))


def _agent_id(value: Any) -> UUID:
    try:
        return parse_uuid(value)
    except ValueError as error:
        raise Invalid(Violation(str(error), "agent_id")) from None

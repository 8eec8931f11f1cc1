"""Users and their keys."""

from typing import Annotated

from flask import Response, g
from flask_openapi3 import APIBlueprint, Tag

from orchestrator import directory
from orchestrator.db import autocommit, begin
from orchestrator.fields import NOT_NULL, Body, Email, Id, Name, Time
from orchestrator.models import api_keys, users
from web import answers, gate, headers, params
from web import directory_schemas as schemas
from web.docs import OPERATION_ID, responses

bp = APIBlueprint(
    "people",
    __name__,
    url_prefix=gate.PREFIX,
    abp_tags=[Tag(name="people", description="Users and their keys.")],
    operation_id_callback=OPERATION_ID,
)


class NewUser(Body):
    """A user to be made."""

    email: Email
    is_superuser: bool = False


class UserChanges(Body):
    """What can be changed about a user."""

    is_active: Annotated[bool | None, NOT_NULL] = None
    is_superuser: Annotated[bool | None, NOT_NULL] = None


class KeyRequest(Body):
    """A key to be made."""

    name: Name
    user_id: Id | None = None
    expires_at: Time | None = None


@bp.get("/me", responses=responses({200: schemas.Me}))
def get_me() -> Response:
    """Who is calling, and with which key."""
    user = {"id": g.caller.user_id, "email": g.caller.email, "is_superuser": g.caller.is_superuser}
    key = {"id": g.caller.key_id, "name": g.caller.key_name, "prefix": g.caller.key_prefix}
    return answers.reply(schemas.Me.model_validate({"user": user, "key": key}))


@bp.post("/users", responses=responses({201: schemas.User}, 409, 422))
def create_user(body: NewUser) -> Response:
    """A new user; a superuser's business."""
    once = headers.once(body.model_dump(mode="json"))
    with begin() as db:
        row, replayed = directory.create_user(db, g.caller, once, body.model_dump())
    return answers.replayable(answers.reply(schemas.User.model_validate(row), 201), replayed)


@bp.get("/users", responses=responses({200: schemas.UserPage}, 422))
def list_users(query: params.ListQuery) -> Response:
    """All users; a superuser's business."""
    with autocommit() as db:
        return answers.page(schemas.UserPage, *directory.listed(db, users, True, query.cursor, query.limit))


@bp.get("/users/<user_id>", responses=responses({200: schemas.User}, 404))
def get_user(path: params.UserPath) -> Response:
    """One user; a superuser's business."""
    with autocommit() as db:
        return answers.reply(schemas.User.model_validate(directory.user(db, path.user_id)))


@bp.patch("/users/<user_id>", responses=responses({200: schemas.User}, 404, 422))
def change_user(path: params.UserPath, body: UserChanges) -> Response:
    """Let a user in or out, or change its rights; a superuser's business."""
    once = headers.once(body.model_dump(mode="json", exclude_unset=True))
    with begin() as db:
        row, replayed = directory.change_user(db, g.caller, once, path.user_id, body.model_dump(exclude_unset=True))
    return answers.replayable(answers.reply(schemas.User.model_validate(row)), replayed)


@bp.post("/keys", responses=responses({201: schemas.NewKey}, 422))
def create_key(body: KeyRequest) -> Response:
    """A new key; its secret is shown this once, so an Idempotency-Key is refused."""
    headers.refuse_key("the secret is shown once")
    with begin() as db:
        row, secret = directory.create_key(db, g.caller, body.model_dump())
    return answers.reply(schemas.NewKey.model_validate(row._asdict() | {"key": secret}), 201)


@bp.get("/keys", responses=responses({200: schemas.KeyPage}, 403, 422))
def list_keys(query: params.KeyQuery) -> Response:
    """The caller's living keys, or another user's for a superuser."""
    condition = directory.own_keys(g.caller, query.user_id)
    with autocommit() as db:
        return answers.page(schemas.KeyPage, *directory.listed(db, api_keys, condition, query.cursor, query.limit))


@bp.delete("/keys/<key_id>", responses=responses({204: None}, 404))
def revoke_key(path: params.KeyPath) -> Response:
    """End a key's life, within a second everywhere."""
    once = headers.once({})
    with begin() as db:
        replayed = directory.revoke_key(db, g.caller, once, path.key_id)
    return answers.replayable(Response(status=204), replayed)

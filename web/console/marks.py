"""The mark of a form: what is sent twice, by a reload or a second click, is done once."""

from hashlib import sha256

from flask import request

from orchestrator.errors import Invalid, KeyReused, Problem, Violation
from orchestrator.idempotency import Once

LONGEST = 64
"""Characters; ours are shorter."""


def once(*parts: str) -> Once | None:
    """The form's mark as an idempotency key, and a fingerprint of what it says; None where it has none."""
    key = request.form.get("once", "")
    if not (key.isascii() and key.isalnum() and len(key) <= LONGEST):
        return None
    return Once(f"console-{key}", sha256(" ".join((request.path, *parts)).encode()).digest())


def plain(problem: Problem) -> Problem:
    """The same for people, who know of no Idempotency-Key."""
    if isinstance(problem, KeyReused):
        return Invalid(Violation("this form was sent already, and said something else then; open it anew"))
    return problem

"""The door: a Flask app that parses, calls one function, and answers."""

import sys

from flask import Response, request
from flask.globals import request_ctx
from flask_openapi3 import OpenAPI
from werkzeug.middleware.proxy_fix import ProxyFix

from orchestrator import limits, logs
from orchestrator.db import Guard, engine
from orchestrator.link import link
from orchestrator.settings import SettingsError, settings
from web import (
    agents,
    bulk,
    console,
    docs,
    events,
    gate,
    leases,
    measures,
    ops,
    people,
    problems,
    projects,
    schemas,
    streams,
    usage,
)
from web.body import JsonRequest
from web.waiters import waiters
from workers import bell

BLUEPRINTS = (agents.bp, leases.bp, bulk.bp, events.bp, usage.bp, people.bp, projects.bp, ops.bp)


GIVE_UP = 3
"""The exit code after which gunicorn ends as well, instead of starting the process again and again."""


def create_app() -> OpenAPI:
    """The WSGI application of one process: listening for the workers. Ends the process where a setting is wrong."""
    try:
        _check_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(GIVE_UP) from None
    app = build()
    if settings().trusted_proxies:
        proxies = settings().trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)  # type: ignore[method-assign]
    waiters()
    streams.hub()  # before there are threads: each could make one of its own
    bell.ring()  # a worker that answers it is heard, and this process is ready
    return app


def _check_settings() -> None:
    """All that requests would stumble over later; connects to nothing."""
    logs.configure("web")
    limits.limits()
    engine(Guard.DOOR)
    link()


def build() -> OpenAPI:
    """Its routes and rules: reads no settings, starts nothing, needs no server."""
    app = OpenAPI(
        __name__,
        info=docs.INFO,
        security_schemes=docs.SECURITY,
        doc_ui=False,
        validation_error_status=401,  # one that every route documents; the framework's own description would be wrong
        validation_error_model=schemas.Problem,
        validation_error_callback=problems.invalid,
        static_folder=None,
    )
    app.request_class = JsonRequest
    app.url_map.merge_slashes = False
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.openapi_extensions = {"security": [{"key": []}]}
    measures.install(app)
    gate.install(app)
    app.before_request(_options)
    problems.install(app)
    for blueprint in BLUEPRINTS:
        app.register_api(blueprint)
    app.register_blueprint(ops.plain)
    console.install(app)
    docs.install(app)
    return app


def _options() -> Response | None:
    """OPTIONS answers 204 with Allow, in the same way everywhere."""
    if request.method != "OPTIONS" or request_ctx.url_adapter is None:
        return None
    allowed = sorted({*request_ctx.url_adapter.allowed_methods(), "OPTIONS"})
    if allowed == ["OPTIONS"]:
        return None
    return Response(status=204, headers={"Allow": ", ".join(allowed)})

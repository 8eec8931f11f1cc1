"""OpenAPI 3.1 from the same models that validate and render, and its pages, with local assets only."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import jsonify, render_template_string
from flask_openapi3 import Info, OpenAPI
from flask_openapi3.models.data_type import DataType
from flask_openapi3.models.parameter import Parameter
from flask_openapi3.models.parameter_in_type import ParameterInType
from flask_openapi3.models.schema import Schema
from flask_openapi3.types import ResponseDict
from flask_openapi3_swagger.plugins import RegisterPlugin
from flask_openapi3_swagger.templates import swagger_html_string
from pydantic import BaseModel

from orchestrator import __version__
from web import headers, schemas

PAGE = Path(__file__).parent.parent / "docs" / "openapi.json"

INFO = Info(
    title="Orchestrator",
    version=__version__,
    description="The control plane for fleets of AI agents. A mutation answers 202 and is applied in order by the"
    " workers; with `Prefer: wait=N` the answer is held until it is.",
)
SECURITY: dict[str, Any] = {"key": {"type": "http", "scheme": "bearer"}}


def OPERATION_ID(*, name: str, path: str, method: str) -> str:  # noqa: N802  # read as the constant it stands for
    """An operation is called as its function is."""
    del path, method
    return name


def responses(good: Mapping[int, type[BaseModel] | None], *errors: int) -> ResponseDict:
    """What a route answers when all is well, the problems it can answer with, and those every route can."""
    problems: ResponseDict = dict.fromkeys((401, 403, 429, 503, *errors), _PROBLEM)
    return problems | dict(good)


_PROBLEM = {
    "description": "A problem, as in RFC 9457.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def install(app: OpenAPI) -> None:
    """Serve `/openapi.json` and `/docs`; to be called when all routes are there."""
    _add_problems(app)
    _add_headers(app)
    app.components_schemas["Problem"] = schemas.Problem.model_json_schema()
    app.register_blueprint(RegisterPlugin.register(doc_url="openapi.json"), url_prefix="/docs-assets")
    app.add_url_rule("/openapi.json", "openapi", lambda: jsonify(app.api_doc))
    app.add_url_rule("/docs", "docs", _page)


def _add_problems(app: OpenAPI) -> None:
    """What any Idempotency-Key, and any body, can be refused for, at every route that takes one."""
    for path in app.paths.values():
        for operation in filter(None, (path.post, path.patch, path.delete)):
            statuses = ("422",) if operation.requestBody is None else ("400", "413", "415", "422")
            operation.responses |= dict.fromkeys(statuses, operation.responses["401"])


def _add_headers(app: OpenAPI) -> None:
    """What requests can say in headers, which no model of an address or a body knows. (Blueprints keep their operations
    from app to app.)"""
    for path in app.paths.values():
        for method in ("get", *map(str.lower, headers.KEYED)):
            operation = getattr(path, method)
            said = headers.heeded(operation.operationId, method.upper()) if operation else {}
            if said:
                others = [each for each in operation.parameters or () if each.param_in is not ParameterInType.HEADER]
                operation.parameters = others + [_header(name, says) for name, says in said.items()]


def _header(name: str, says: str) -> Parameter:
    text = Schema(type=DataType.STRING)
    return Parameter(name=name, param_in=ParameterInType.HEADER, description=says, param_schema=text)


def _page() -> str:
    html = swagger_html_string.replace("swagger/", "docs-assets/swagger/")
    local = {"validatorUrl": None}  # else the page would send its address to a validator on the web
    return render_template_string(html, doc_url="openapi.json", swagger_config=local, oauth_config=None)


def render() -> str:
    """The document with its names in order, for readers and clients that have no server at hand."""
    from web import build  # noqa: PLC0415  # which imports this module

    return json.dumps(build().api_doc, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

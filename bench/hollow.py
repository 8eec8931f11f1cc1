"""The floor: a Flask view that reads its JSON and answers, and does nothing, behind the server that is ours.

`gunicorn -c python:web.serve "bench.hollow:create_app()"`.
"""

from flask import Flask, Response, jsonify, request


def create_app() -> Flask:
    """Whatever is posted is well."""
    app = Flask(__name__)

    @app.post("/<path:_>")
    def nothing(_: str) -> Response:
        request.get_json()
        return jsonify(directive="continue", mode=None, reason=None, deadline=None)

    @app.get("/healthz")
    def healthz() -> Response:
        return jsonify(status="ok")

    return app

"""gunicorn's own log, in our form: what its processes do, and what it makes of requests that never reach us."""

from typing import Any

from gunicorn.glogging import Logger

from orchestrator import logs

_WITH_WHAT_WAS_SENT = {"Invalid request from ip=": ": ", "Error handling request": " %"}
"""How lines begin that go on with what the client has sent, which may be a secret, and what that follows."""


class ServerLog(Logger):  # type: ignore[misc]  # gunicorn ships no type information
    """JSON lines, without the client's words. (Of what is refused, `web.worker` logs the cause and the request id.)"""

    def setup(self, cfg: Any) -> None:
        """As gunicorn does it, but for the form; an operator's own --log-config stays as it is."""
        super().setup(cfg)
        ours = self._get_gunicorn_handler(self.error_log)
        if ours is not None:
            ours.setFormatter(logs.formatter("web"))

    def warning(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """One line of level warning."""
        super().warning(*_harmless(msg, args), **kwargs)

    def exception(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """One line of level error, with the trace."""
        super().exception(*_harmless(msg, args), **kwargs)


def _harmless(msg: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The message and its arguments, or its beginning alone."""
    for beginning, before in _WITH_WHAT_WAS_SENT.items():
        if str(msg).startswith(beginning):
            return (str(msg).partition(before)[0],)
    return (msg, *args)

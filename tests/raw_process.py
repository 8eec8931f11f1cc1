"""An agent's process as anybody could write it, without the SDK: it beats until it is refused, then tries the rest.

`python -m tests.raw_process URL KEY AGENT`, where AGENT is the agent's path. Each beat brings one token of usage. At
the end it prints, as JSON, how many beats it sent, and status and code of the answers to the last beat, to a PATCH in
the name of its epoch, and to the release.
"""

import json
import sys
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def call(url: str, key: str, method: str, body: Any, **headers: str) -> Any:
    """Status and body of the answer."""
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(url, json.dumps(body).encode(), given, method=method)  # noqa: S310  # the test's own server
    try:
        with urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read() or "null")
    except HTTPError as error:
        return error.code, json.loads(error.read())


def main(url: str, key: str, agent: str) -> None:
    """Beat, and try."""
    place = f"{url}/api/v1/{agent}"
    lease = call(f"{place}/lease", key, "POST", {"holder": "raw", "ttl": 5})[1]
    epoch, token, beats = lease["epoch"], lease["token"], 0
    while True:
        beats += 1
        used = [{"report_id": f"beat-{beats}", "input_tokens": 1}]
        says = {"epoch": epoch, "status": "working", "current_task": "count", "entries": used}
        status, said = call(f"{place}/beat", token, "POST", says)
        if status != 200:
            break
        time.sleep(0.05)
    late = [
        (status, said),
        call(place, key, "PATCH", {"current_task": "late"}, Lease_Epoch=str(epoch), Prefer="wait=10"),
        call(f"{place}/lease", token, "DELETE", {"epoch": epoch}),
    ]
    sys.stdout.write(json.dumps([beats, [(status, said["errors"][0]["code"]) for status, said in late]]))


if __name__ == "__main__":
    main(*sys.argv[1:])

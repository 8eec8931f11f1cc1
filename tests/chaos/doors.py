"""The doors of the fleet in memory: what each operation is answered."""

from typing import Any

from tests.chaos.contract import Order
from tests.chaos.evidence import Request, Sent, ordered
from tests.chaos.history import Call
from tests.chaos.simulated import STOPPED, Answer, Fleet, Subject

SILENCE = 10**9 * 5 * 4 // 3
"""After which a lease is lost: four thirds of its ttl, which is five seconds here."""

NOT_FOUND: Answer = (404, {"status": 404})


class Server(Fleet):
    """Requests have their effect at once."""

    def take(self, call: Call, now: int) -> Answer | dict[str, Any]:
        """The answer; or the command, where the caller may wait for it."""
        self.now = now
        if call.key in self.kept:
            return self.kept[call.key]
        taken: Answer | dict[str, Any] = getattr(self, f"_{call.op}")(call, now)
        if call.key is not None and (isinstance(taken, dict) or taken[0] < 300):
            self.kept[call.key] = taken
        return taken

    def _spawn(self, call: Call, _: int) -> dict[str, Any]:
        subject = self.subjects[f"agent-{len(self.subjects)}"] = Subject(f"agent-{len(self.subjects)}")
        return self.accept(subject, Order("spawn", call.sent["body"]), call.key)

    def _order(self, call: Call, _: int) -> dict[str, Any]:
        order = Order(call.op, call.sent["body"], call.sent.get("if_match"))
        return self.accept(self.subjects[call.agent or ""], order, call.key)

    _pause = _resume = _update = _terminate = _order

    def _cancel(self, call: Call, _: int) -> Answer:
        command = self.commands[call.sent["command"]]
        if command["state"] != "queued":
            return 409, {}
        command["state"], command["closed_at"] = "cancelled", self._time()
        self.subjects[command["agent_id"]].mail.remove(command)
        return 200, dict(command)

    def _bulk(self, call: Call, _: int) -> Answer:
        items = []
        for index, item in enumerate(call.sent["body"]["commands"]):
            order = ordered(_request(call), str(index))
            assert order is not None
            made = self.accept(self.subjects[item["agent_id"]], order, item["reason"])
            items.append({"index": index, "command_id": made["id"], "agent_id": item["agent_id"], "error": None})
        return 202, {"batch_id": call.key, "accepted": len(items), "refused": 0, "items": items}

    def _by_filter(self, call: Call, _: int) -> Answer:
        order, wanted = ordered(_request(call)), call.sent["body"]["filter"].get("status")
        assert order is not None
        matching = [subject for subject in self.subjects.values() if subject.life.status == wanted]
        for subject in matching:
            self.accept(subject, order, call.key)
        return 202, {"batch_id": call.key, "count": len(matching)}

    def _usage(self, call: Call, _: int) -> Answer:
        subject, entries = self.subjects[call.agent or ""], call.sent["body"]["entries"]
        if subject.life.status is None and not subject.mail:
            return NOT_FOUND
        new = self._report(subject, entries)
        if "wait" in call.sent:
            self.count(subject)
        answer = {"accepted": new, "duplicates": len(entries) - new, "conflicts": []}
        return 200 if "wait" in call.sent else 202, answer

    def _report(self, subject: Subject, entries: list[dict[str, Any]]) -> int:
        """How many are new."""
        new = {entry["report_id"]: entry for entry in entries if entry["report_id"] not in subject.reports}
        subject.reports |= new.keys()
        subject.uncounted += new.values()
        self.dirty[subject.id] = subject
        return len(new)

    def _lease(self, call: Call, now: int) -> Answer:
        subject, body = self.subjects[call.agent or ""], call.sent["body"]
        if self._told(subject) != "continue" or (subject.alive(now) and subject.holder != body["holder"]):
            return 409, {}
        self._over(subject)
        subject.epoch, subject.holder, subject.lost_at = subject.epoch + 1, body["holder"], now + SILENCE
        return 201, {"lease_id": f"{subject.id}.{subject.epoch}", "epoch": subject.epoch, "directive": "continue"}

    def _beat(self, call: Call, now: int) -> Answer:
        subject, body = self.subjects[call.agent or ""], dict(call.sent["body"])
        if subject.life.status is None:
            return NOT_FOUND
        self._report(subject, body.pop("entries", []))
        version, ack = subject.life.version, body.pop("ack", False)
        if body.pop("epoch") != subject.epoch or not subject.alive(now):
            return 409, {"version": version, "directive": self._told(subject)}
        subject.lost_at = now + SILENCE
        if body and subject.life.status != "paused":
            self.accept(subject, Order("update", body, subject.epoch), None, "agent")
        told = self._told(subject)
        subject.acked = ack and told != "continue"
        if subject.acked and subject.life.status in STOPPED:
            self.quiesce(subject, "ack")
        return 200, {"directive": told, "version": version}

    def _beats(self, call: Call, now: int) -> Answer:
        data = []
        for beat in call.sent["body"]["beats"]:
            alone = {name: value for name, value in beat.items() if name != "agent_id"}
            status, answer = self._beat(Call(0, "beat", 0, beat["agent_id"], None, {"body": alone}), now)
            told, code = (answer, None) if status == 200 else (None, "fenced" if status == 409 else "not_found")
            data.append({"agent_id": beat["agent_id"], "told": told, "error": code and {"code": code}})
        return 200, {"data": data}

    def _release(self, call: Call, now: int) -> Answer:
        subject = self.subjects[call.agent or ""]
        if call.sent["body"]["epoch"] != subject.epoch or not subject.alive(now):
            return 409, {}
        self._over(subject)
        return 204, None

    def _over(self, subject: Subject) -> None:
        if subject.holder is not None:
            subject.holder, subject.acked = None, False
            self.quiesce(subject, "release")
            self.accept(subject, Order("settle", {}), "lease_over", "system")

    def _told(self, subject: Subject) -> str:
        stopping = any(Sent(one, self.orders[one["id"]]).stops for one in subject.mail)
        if subject.life.status in (None, "terminated"):
            return "terminate"
        return "pause" if stopping or subject.life.status == "paused" else "continue"

    def _get(self, call: Call, _: int) -> Answer:
        subject = self.subjects[call.agent or ""]
        return (200, self.show(subject)) if subject.life.status else NOT_FOUND

    def _agent_metrics(self, call: Call, _: int) -> Answer:
        subject = self.subjects[call.agent or ""]
        return (200, self.sums([subject])) if subject.life.status else NOT_FOUND

    def _metrics(self, _: Call, __: int) -> Answer:
        return 200, self.sums([*self.subjects.values()])

    def _list(self, _: Call, __: int) -> Answer:
        return 200, {"ids": [subject.id for subject in self.subjects.values() if subject.life.status]}

    def _found(self, _: Call, __: int) -> Answer:
        """By a filter that names everybody."""
        return 200, {"seen": {one.id: one.life.version for one in self.subjects.values() if one.life.status}}

    def _stranger(self, _: Call, __: int) -> Answer:
        return NOT_FOUND


def _request(call: Call) -> Request:
    return Request(call.key or "", call.op, [call])

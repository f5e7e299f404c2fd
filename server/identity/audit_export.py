"""Lines of the audit log for others: as they are, or as FHIR R4 AuditEvents (https://hl7.org/fhir/R4/auditevent.html)."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import orjson

from server.identity.audit_chain import BEGIN, END, AuditLine

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
# How FHIR's AuditEvent names what a method does: an action, and a RESTful interaction.
_READ, _CREATE = ("R", "read"), ("C", "create")
_OF_METHODS = {
    **{"GET": _READ, "HEAD": _READ, "OPTIONS": _READ, "POST": _CREATE},
    **{"PUT": ("U", "update"), "PATCH": ("U", "patch"), "DELETE": ("D", "delete")},
}
_EXECUTE = ("E", "operation")
# Asked, and nothing is made that stays: questions and searches for evidence.
_EXECUTED = ("/questions", "/evidence", "/completions", "/encode")
_OBJECT = {"system": f"{_TERMINOLOGY}/audit-entity-type", "code": "2", "display": "System Object"}


def lines_of(lines: Iterable[AuditLine], tenant: str | None, since: datetime | None) -> Iterator[AuditLine]:
    """Those of one tenant, or with None of all and of the chains themselves; from a moment on."""
    for line in lines:
        is_wanted = tenant is None or line.said.get("tenant") == tenant
        if is_wanted and (since is None or datetime.fromisoformat(line.said["at"]) >= since):
            yield line


def audit_events(lines: Iterable[AuditLine]) -> Iterator[bytes]:
    """One FHIR AuditEvent a line of NDJSON. A change that was begun is told with its end; where there is none, because
    its process was killed or its client left, it is told by itself at the end, as one whose outcome is not known."""
    begun: dict[tuple[str, int], AuditLine] = {}
    for line in lines:
        if line.action in (BEGIN, END):
            continue
        if line.said.get("phase") == "begun":
            begun[line.writer, line.n] = line
            continue
        begun.pop((line.writer, line.said.get("begun", -1)), None)
        yield orjson.dumps(_audit_event(line)) + b"\n"
    for line in begun.values():
        yield orjson.dumps(_audit_event(line)) + b"\n"


def _audit_event(line: AuditLine) -> dict[str, Any]:
    said = line.said
    action, interaction = _interaction(line.action)
    outcome, described = _outcome(said)
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": f"{line.writer}-{line.n}",
        "type": {"system": f"{_TERMINOLOGY}/audit-event-type", "code": "rest", "display": "RESTful Operation"},
        "subtype": [{"system": "http://hl7.org/fhir/restful-interaction", "code": interaction}],
        "action": action,
        "recorded": said["at"],
        "outcome": outcome,
        "outcomeDesc": f"{line.action}: {described}",
        "agent": [{"who": {"identifier": _identifier("caller", said.get("who", "unknown"))}, "requestor": True}],
        "source": {
            "observer": {"identifier": _identifier("audit-writer", line.writer), "display": "Eyepiece"},
            "type": [{"system": f"{_TERMINOLOGY}/security-source-type", "code": "4", "display": "Application Server"}],
        },
    }
    if "tenant" in said:
        event["source"]["site"] = said["tenant"]
    if "purpose" in said:
        coded = {"system": f"{_TERMINOLOGY}/v3-ActReason", "code": said["purpose"]}
        event["purposeOfEvent"] = [{"coding": [coded]}]
    event["entity"] = [*_entities(said), _as_written(line)]
    return event


def _interaction(action: str) -> tuple[str, str]:
    method, _, address = action.partition(" ")
    if method not in _OF_METHODS or (method == "POST" and address.endswith(_EXECUTED)):
        return _EXECUTE
    return _OF_METHODS[method]


def _outcome(said: dict[str, Any]) -> tuple[str, str]:
    """FHIR's code and words: 0 done, 4 refused, 8 failed."""
    if said.get("phase") == "begun":
        return "8", "begun, and how it ended is not known"
    status = said.get("outcome", 200)
    code = "0" if status < 400 else "4" if status < 500 else "8"
    if said["action"].partition(" ")[0] in _OF_METHODS:
        return code, f"HTTP {status}"
    return code, "done" if code == "0" else "failed"


def _entities(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    about = ({"slide": said["slide"]} if "slide" in said else {}) | said.get("about", {})
    for name, value in about.items():
        yield {"what": {"identifier": _identifier(name, value)}, "type": _OBJECT}
    if "request_id" in said:
        kind = {"system": f"{_TERMINOLOGY}/audit-entity-type", "code": "4", "display": "Other"}
        yield {"what": {"identifier": _identifier("request", said["request_id"])}, "type": kind}


def _as_written(line: AuditLine) -> dict[str, Any]:
    """The line itself, by its place in the chain and its hash: an export is held against the log by them. With what a
    command erased, which is nowhere else."""
    told = {"n": line.n, "sha256": line.hash} | line.said.get("erased", {})
    details = [{"type": name, "valueString": str(value)} for name, value in told.items()]
    return {"name": f"line {line.n} of {line.writer}", "detail": details}


def _identifier(kind: str, value: str) -> dict[str, str]:
    return {"system": f"urn:eyepiece:{kind}", "value": value}

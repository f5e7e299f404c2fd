"""What is told to receivers: the event, its body, and its signature as Standard Webhooks has it."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from server.webhooks.endpoint import EventType


@dataclass(frozen=True)
class WebhookEvent:
    """`body` is the JSON that is signed and sent, the same at every attempt and to every receiver."""

    id: str
    type: EventType
    tenant: str
    slide_id: str
    body: str


def slide_event(
    tenant: str, slide_id: str, *, model: str, encoder_id: str, run: str, error_code: str | None = None
) -> WebhookEvent:
    """The slide became ready, or failed with a code. `run` names the encode job: whoever tells of the same one again
    gets the same id. The body holds nothing of the slide but its id: no file name, and no sentence about it."""
    kind: EventType = "slide.ready" if error_code is None else "slide.failed"
    named = "\n".join([tenant, slide_id, model, encoder_id, run, kind])
    data = {
        "slide_id": slide_id,
        "tenant": tenant,
        "model": model,
        "encoder_id": encoder_id,
        "status": kind.removeprefix("slide."),
        "error_code": error_code,
    }
    return _event(kind, tenant, slide_id, named, data)


def report_event(tenant: str, slide_id: str, report_id: str, number: int, model: str) -> WebhookEvent:
    """A report about the slide is kept. The body holds where it is and nothing of it."""
    kind: EventType = "report.ready"
    data = {
        "slide_id": slide_id,
        "tenant": tenant,
        "report": number,
        "report_id": report_id,
        "model": model,
        "status": "preliminary",
    }
    return _event(kind, tenant, slide_id, "\n".join([tenant, slide_id, report_id, kind]), data)


def _event(kind: EventType, tenant: str, slide_id: str, named: str, data: dict[str, Any]) -> WebhookEvent:
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    body = orjson.dumps({"type": kind, "timestamp": moment, "data": data}).decode()
    return WebhookEvent(f"evt_{hashlib.sha256(named.encode()).hexdigest()[:32]}", kind, tenant, slide_id, body)


def signed_headers(event: WebhookEvent, keys: Sequence[bytes], sent_at_s: int) -> dict[str, str]:
    """The headers of an attempt, with a signature by each key: HMAC-SHA256 over id, time in Unix seconds, and body."""
    signed = f"{event.id}.{sent_at_s}.{event.body}".encode()
    digests = [base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Eyepiece-Webhooks/1",
        "webhook-id": event.id,
        "webhook-timestamp": str(sent_at_s),
        "webhook-signature": " ".join(f"v1,{digest}" for digest in digests),
    }

"""What the operator may set up as an endpoint."""

import base64
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from webhook_receiver import SECRET, endpoint_at

from server.settings import Settings

SECURE = "https://lis.hospital.example/hooks"


def test_settings_take_endpoints_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    one = (
        f'{{"name": "lis", "tenant": "lab-a", "url": "{SECURE}", "secrets": ["{SECRET}"], "networks": ["10.1.0.0/16"]}}'
    )
    monkeypatch.setenv("EYEPIECE_WEBHOOKS", f"[{one}]")

    (endpoint,) = Settings().webhooks

    assert (endpoint.host, endpoint.events) == ("lis.hospital.example", ("slide.ready", "slide.failed", "report.ready"))
    assert endpoint.keys == (b"a" * 32,)
    assert SECRET not in repr(endpoint)

    monkeypatch.setenv("EYEPIECE_WEBHOOKS", f"[{one}, {one}]")
    with pytest.raises(ValidationError, match="twice"):
        Settings()


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://lis.hospital.example/"},
        {"url": "https:///hooks"},
        {"url": "https://lis.hospital.example:99999/"},
        {"url": "https://user:password@lis.hospital.example/"},
        {"url": "http://lis.hospital.example/"},
        {"secrets": ()},
        {"secrets": ("whsec_" + base64.b64encode(b"a" * 23).decode(),)},
        {"secrets": ("whsec_!",)},
        {"secrets": ("a" * 40,)},
        {"secrets": (SECRET, SECRET, SECRET)},
        {"events": ("report.signed",)},
        {"events": ()},
        {"name": "Two Words"},
        {"ca_file": Path("/nowhere.pem")},
        {"headers": {}},
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_without_showing_the_secret(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        endpoint_at(**{"url": SECURE} | wrong)

    assert SECRET not in str(refused.value)


def test_plain_http_is_for_networks_that_the_operator_named() -> None:
    assert endpoint_at("http://lis.hospital.example/", networks=("10.1.0.0/16",)).host == "lis.hospital.example"
    assert endpoint_at("http://10.1.2.3:8080/").host == "10.1.2.3"

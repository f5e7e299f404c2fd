"""One attempt: what receivers get, where it goes, and what counts as delivered."""

import datetime
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from standardwebhooks.webhooks import WebhookVerificationError
from webhook_receiver import NEXT_SECRET, SECRET, Receiver, endpoint_at, event_of, running_receiver

from server.webhooks import post_event
from server.webhooks.endpoint import WebhookEndpoint
from server.webhooks.event import WebhookEvent
from server.webhooks.post_event import Failure, Poster


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


class LookUp:
    """Says an address once for each, the last one for ever."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return [self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]]


async def post(endpoint: WebhookEndpoint, event: WebhookEvent | None = None, **options: Any) -> Failure | None:
    poster = Poster(endpoint, **options)
    try:
        return await poster.post(event or event_of())
    finally:
        await poster.aclose()


async def test_the_reference_library_verifies_what_is_sent(receiver: Receiver) -> None:
    event = event_of()

    assert await post(endpoint_at(receiver.url), event) is None

    said = receiver.verified()
    moment = datetime.datetime.fromisoformat(said.pop("timestamp"))
    assert abs(datetime.datetime.now(datetime.UTC) - moment) < datetime.timedelta(minutes=5)
    data = {"slide_id": "5e" * 32, "tenant": "default", "model": "demo", "encoder_id": "e" * 16}
    assert said == {"type": "slide.ready", "data": data | {"status": "ready", "error_code": None}}
    assert receiver.got == [event.id]
    with pytest.raises(WebhookVerificationError):
        receiver.verified(secret=NEXT_SECRET)


async def test_a_failure_says_its_code() -> None:
    with running_receiver() as receiver:
        await post(endpoint_at(receiver.url), event_of(error_code="no_tissue"))

        said = receiver.verified()
    assert (said["type"], said["data"]["status"], said["data"]["error_code"]) == ("slide.failed", "failed", "no_tissue")


async def test_while_secrets_change_both_verify(receiver: Receiver) -> None:
    both = (SecretStr(NEXT_SECRET), SecretStr(SECRET))

    assert await post(endpoint_at(receiver.url, secrets=both)) is None

    assert receiver.verified(secret=SECRET) == receiver.verified(secret=NEXT_SECRET)


async def test_the_address_that_was_looked_at_is_connected_to_and_the_name_is_looked_up_once(
    receiver: Receiver,
) -> None:
    look_up = LookUp("127.0.0.1", "169.254.169.254")
    named = endpoint_at(f"http://lis.hospital.example:{receiver.port}/hooks?of=us", networks=("127.0.0.0/8",))

    assert await post(named, look_up=look_up) is None

    assert look_up.asked == ["lis.hospital.example"]
    path, headers, _ = receiver.asked[0]
    assert (path, headers["Host"]) == ("/hooks?of=us", f"lis.hospital.example:{receiver.port}")


async def test_no_connection_is_made_to_an_address_that_is_not_allowed(receiver: Receiver) -> None:
    rebound = endpoint_at(f"https://lis.hospital.example:{receiver.port}/")

    assert await post(rebound, look_up=LookUp("127.0.0.1")) == Failure("forbidden_address")

    assert receiver.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    with running_receiver() as private:
        receiver.answers, receiver.headers = [status], {"Location": private.url}

        assert await post(endpoint_at(receiver.url)) == Failure("redirect", status)

        assert private.asked == []


async def test_an_error_is_told_with_its_status_and_how_long_to_wait(receiver: Receiver) -> None:
    receiver.answers, receiver.headers = [503, 410], {"Retry-After": "120"}

    assert await post(endpoint_at(receiver.url)) == Failure("status", 503, 120.0)
    assert await post(endpoint_at(receiver.url)) == Failure("status", 410, 120.0, for_good=True)


async def test_a_slow_receiver_is_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post_event, "ATTEMPT_S", 0.05)
    receiver.goes_on.clear()

    assert await post(endpoint_at(receiver.url)) == Failure("timeout")


async def test_nobody_there_and_no_name_are_told_apart() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert await post(endpoint_at(f"http://127.0.0.1:{taken.getsockname()[1]}/")) == Failure("unreachable")
    assert await post(endpoint_at("https://lis.invalid/"), look_up=_no_such_name) == Failure("unresolvable")


async def _no_such_name(host: str, port: int) -> Sequence[str]:
    raise socket.gaierror


async def test_an_answer_without_end_is_not_read(receiver: Receiver) -> None:
    receiver.headers = {"Content-Length": str(2**60)}
    receiver.answers = [200]

    assert await post(endpoint_at(receiver.url)) is None


async def test_a_proxy_of_the_environment_is_not_asked(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_receiver() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")

        assert await post(endpoint_at(receiver.url)) is None

        assert proxy.asked == []


async def test_the_certificate_is_the_names_though_the_connection_is_to_an_address(tmp_path: Path) -> None:
    own_ca = _certificate(tmp_path, "lis.hospital.example")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(own_ca, tmp_path / "key.pem")
    with running_receiver(tls) as receiver:
        trusting = {"networks": ("127.0.0.0/8",), "ca_file": own_ca}
        named, other = (f"https://{name}.hospital.example:{receiver.port}/" for name in ("lis", "other"))

        assert await post(endpoint_at(named, **trusting), look_up=LookUp("127.0.0.1")) is None
        assert await post(endpoint_at(other, **trusting), look_up=LookUp("127.0.0.1")) == Failure("unreachable")
        untrusting = endpoint_at(named, networks=("127.0.0.0/8",))
        assert await post(untrusting, look_up=LookUp("127.0.0.1")) == Failure("unreachable")
        assert len(receiver.asked) == 1


def _certificate(folder: Path, host: str) -> Path:
    """Signed by itself, beside its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return folder / "certificate.pem"

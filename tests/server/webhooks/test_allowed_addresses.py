"""Where a webhook may go, whatever a name server says."""

from collections.abc import Sequence

import pytest
from webhook_receiver import endpoint_at

from server.webhooks.allowed_addresses import ForbiddenAddress, Resolve, allowed_addresses, resolve

SECURE = "https://lis.hospital.example/"
FORBIDDEN = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fd00::1",
    "ff02::1",
    "fec0::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
]


def says(*addresses: str) -> Resolve:
    async def look_up(host: str, port: int) -> Sequence[str]:
        return addresses

    return look_up


@pytest.mark.parametrize("address", FORBIDDEN)
async def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(ForbiddenAddress):
        await allowed_addresses(endpoint_at(SECURE), 443, says(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
async def test_a_public_address_is_taken(address: str) -> None:
    assert await allowed_addresses(endpoint_at(SECURE), 443, says(address)) == [address]


async def test_of_several_addresses_only_the_allowed_ones_are_left() -> None:
    look_up = says("127.0.0.1", "93.184.216.34", "10.1.2.3", "10.2.2.3")

    assert await allowed_addresses(endpoint_at(SECURE), 443, look_up) == ["93.184.216.34"]
    own = endpoint_at(SECURE, networks=("10.1.0.0/16",))
    assert await allowed_addresses(own, 443, look_up) == ["93.184.216.34", "10.1.2.3"]
    plain = endpoint_at("http://lis.hospital.example/", networks=("10.1.0.0/16",))
    assert await allowed_addresses(plain, 80, look_up) == ["10.1.2.3"]


@pytest.mark.parametrize("url", ["https://10.1.2.3/", "https://[fd00::1]/"])
async def test_an_address_in_the_url_is_named_by_the_operator(url: str) -> None:
    endpoint = endpoint_at(url)

    assert await allowed_addresses(endpoint, 443, resolve) == [endpoint.host]


@pytest.mark.parametrize("url", ["https://2130706433/", "https://0x7f.1/", "https://localhost/"])
async def test_this_machine_by_another_name_is_refused(url: str) -> None:
    with pytest.raises((ForbiddenAddress, OSError)):
        await allowed_addresses(endpoint_at(url), 443, resolve)

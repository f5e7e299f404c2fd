"""deploy/haproxy in a real HAProxy: who gets which request, what drains, what is sent again and what is not."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from haproxy_process import (
    RULES,
    RunningHaproxy,
    check_configuration,
    needs_haproxy,
    running_haproxy,
    servers_file,
    wait_until,
)
from name_server import NameServer, name_server
from stand_in_server import StandIn, close_listener, stand_in

from server.machine.redis_server import free_loopback_port

COMPOSE_SERVERS = RULES.parent / "servers-compose.cfg"
ONE_MACHINE = RULES.parent / "servers-one-machine.cfg"
SLIDES = [f"slide-{number}" for number in range(60)]
pytestmark = needs_haproxy


class Balanced:
    """Two stand-ins for the API and three for vLLM, behind HAProxy."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.apis = [stack.enter_context(stand_in(f"api{number}")) for number in (1, 2)]
        self.vllms = [stack.enter_context(stand_in(f"vllm{number}")) for number in (1, 2, 3)]
        ports = [[server.port for server in servers] for servers in (self.apis, self.vllms)]
        self.haproxy = stack.enter_context(running_haproxy(folder, servers_file(folder, *ports)))
        self.client = stack.enter_context(httpx.Client(timeout=30))

    def get(self, path: str) -> httpx.Response:
        """As a client of the API."""
        return self.client.get(self.haproxy.clients_url + path)

    def ask(self, slide: str) -> str:
        """As the API asks about a slide; the name of the replica that answered."""
        return ask(self.client, self.haproxy, slide)

    def replicas(self) -> dict[str, str]:
        """The replica of every slide."""
        return {slide: self.ask(slide) for slide in SLIDES}

    def become(self, server: StandIn, *, healthy: bool) -> None:
        """Changes a health check and waits until HAProxy has seen it."""
        server.healthy = healthy
        backend = "api" if server in self.apis else "llm"
        self.haproxy.wait_for(backend, server.name, "UP" if healthy else "DOWN")

    def streaming(self, stack: ExitStack) -> tuple[StandIn, Iterator[bytes]]:
        """A stream that has begun: who sends it, and what is still to come."""
        url = f"{self.haproxy.clients_url}/stream"
        response = stack.enter_context(self.client.stream("GET", url))
        pieces = response.iter_raw()
        assert next(pieces) == b"first"
        return next(api for api in self.apis if "/stream" in api.paths), pieces


def ask(client: httpx.Client, haproxy: RunningHaproxy, slide: str) -> str:
    """A question's request; its answer."""
    url = f"{haproxy.llm_url}/v1/chat/completions"
    return client.post(url, headers={"X-Slide-Id": slide}, content=b"{}").text


def moved(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Which slides are elsewhere now."""
    return {slide for slide in SLIDES if before[slide] != after[slide]}


@pytest.fixture
def balanced(tmp_path: Path) -> Iterator[Balanced]:
    with ExitStack() as stack:
        yield Balanced(tmp_path, stack)


def test_composes_configuration_is_valid_and_nothing_in_it_is_ignored() -> None:
    assert check_configuration(RULES, COMPOSE_SERVERS) == ""
    assert check_configuration(RULES, COMPOSE_SERVERS, COMPOSE_SERVERS.with_name("servers-second-model.cfg")) == ""


def test_two_vllms_of_one_machine_share_its_slides(tmp_path: Path) -> None:
    assert check_configuration(RULES, ONE_MACHINE) == ""
    with stand_in("api1") as api, stand_in("vllm1") as first, stand_in("vllm2") as second:
        text = ONE_MACHINE.read_text()
        for written, server in (("8000", api), ("8111", first), ("8112", second)):
            assert text.count(f" 127.0.0.1:{written}\n") == 1
            text = text.replace(f" 127.0.0.1:{written}\n", f" 127.0.0.1:{server.port}\n")
        servers = tmp_path / "servers.cfg"
        servers.write_text(text)
        with running_haproxy(tmp_path, servers) as haproxy:
            for name in ("vllm1", "vllm2"):
                haproxy.wait_for("llm", name, "UP")
            url = f"{haproxy.llm_url}/v1/chat/completions"
            asked = [{slide: httpx.post(url, headers={"X-Slide-Id": slide}).text for slide in SLIDES} for _ in range(2)]

    assert asked[0] == asked[1]
    assert set(asked[0].values()) == {"vllm1", "vllm2"}


def test_options_of_the_listener_can_be_given(tmp_path: Path) -> None:
    servers = tmp_path / "servers.cfg"
    servers.write_text("backend api from api_rules\nbackend llm from llm_rules\n")

    assert check_configuration(RULES, servers, environment={"API_BIND": ":8443 accept-proxy"}) == ""
    assert "nonsense" in check_configuration(RULES, servers, environment={"API_BIND": ":8443 nonsense"})


def test_requests_go_to_the_apis_in_turn(balanced: Balanced) -> None:
    assert Counter(balanced.get("/v1/slides").text for _ in range(6)) == {"api1": 3, "api2": 3}


def test_a_slide_keeps_its_replica_when_another_one_leaves_and_comes_back(balanced: Balanced) -> None:
    before = balanced.replicas()
    gone = balanced.vllms[1]
    balanced.become(gone, healthy=False)
    without = balanced.replicas()
    balanced.become(gone, healthy=True)

    assert set(before.values()) == {"vllm1", "vllm2", "vllm3"}
    assert moved(before, without) == {slide for slide in SLIDES if before[slide] == gone.name}
    assert set(without.values()) == {"vllm1", "vllm3"}
    assert balanced.replicas() == before


def test_a_draining_api_gets_no_new_request_and_finishes_what_it_streams(balanced: Balanced) -> None:
    with ExitStack() as stack:
        draining, rest = balanced.streaming(stack)
        balanced.become(draining, healthy=False)
        answered_by = {balanced.get("/v1/slides").text for _ in range(6)}
        draining.go_on.set()

        assert answered_by == {api.name for api in balanced.apis} - {draining.name}
        assert b"".join(rest) == b"last"


def test_a_replica_drained_by_hand_gets_no_new_slide(balanced: Balanced) -> None:
    before = balanced.replicas()
    balanced.haproxy.say("set server llm/vllm1 state drain")
    drained = balanced.replicas()
    balanced.haproxy.say("set server llm/vllm1 state ready")

    assert "vllm1" in before.values()
    assert "vllm1" not in drained.values()
    assert balanced.replicas() == before


def test_a_replica_that_calls_itself_healthy_and_refuses_questions_gets_none(balanced: Balanced) -> None:
    stopping = balanced.vllms[0]
    stopping.takes_work = False  # as vLLM after SIGTERM
    balanced.haproxy.wait_for("llm", stopping.name, "DOWN")

    assert stopping.healthy
    assert set(balanced.replicas().values()) == {"vllm2", "vllm3"}


def test_a_request_that_reached_nobody_goes_to_another_server(balanced: Balanced) -> None:
    replica = {name: slide for slide, name in balanced.replicas().items()}
    balanced.haproxy.say("disable health llm/vllm1")  # so that only the connection tells
    close_listener(balanced.vllms[0])

    assert balanced.ask(replica["vllm1"]) in ("vllm2", "vllm3")


def test_a_request_that_was_sent_is_not_sent_again(balanced: Balanced) -> None:
    answer = balanced.get("/break")

    assert sum(api.paths.count("/break") for api in balanced.apis) == 1
    assert answer.status_code == 502
    assert answer.json()["code"] == "dependency_unavailable"


def test_a_client_that_hangs_up_is_heard_by_the_server(balanced: Balanced) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{balanced.haproxy.clients_url}/wait", timeout=0.5)

    wait_until(lambda: any(api.saw_hang_up.is_set() for api in balanced.apis))


def test_readiness_of_the_whole_is_that_of_any_api(balanced: Balanced) -> None:
    first, second = balanced.apis
    balanced.become(first, healthy=False)
    assert balanced.get("/readyz").status_code == 200
    balanced.become(second, healthy=False)
    refused = balanced.get("/v1/slides")

    assert balanced.get("/readyz").status_code == 503
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert refused.json()["status"] == 503


def test_an_api_that_can_only_do_some_things_is_asked_and_says_itself_what_it_cannot(balanced: Balanced) -> None:
    for api in balanced.apis:
        api.does_everything = False  # as without the language model
    checks_seen = [len(api.checks) for api in balanced.apis]
    wait_until(lambda: all(len(api.checks) > seen + 3 for api, seen in zip(balanced.apis, checks_seen, strict=True)))

    assert {balanced.get("/v1/slides").text for _ in range(6)} == {"api1", "api2"}
    assert balanced.get("/readyz").status_code == 200


def test_numbers_and_vllms_other_routes_are_not_passed_on(balanced: Balanced) -> None:
    for path in ("/metrics", "/metrics/"):
        assert balanced.get(path).status_code == 404
    for path in ("/invocations", "/tokenize", "/v1/models", "/metrics"):
        assert balanced.client.get(balanced.haproxy.llm_url + path).status_code == 404
    assert balanced.client.get(balanced.haproxy.llm_url + "/health").status_code == 200
    assert not [path for server in (*balanced.apis, *balanced.vllms) for path in server.paths]


def test_the_log_holds_no_path(balanced: Balanced, tmp_path: Path) -> None:
    balanced.get("/v1/slides/secret-id/thumbnail?also=secret")
    log = tmp_path / "haproxy.log"

    wait_until(lambda: '"event":"proxied"' in log.read_text())
    assert "secret" not in log.read_text()


def composes_servers(folder: Path, names: NameServer, vllm_port: int) -> Path:
    """The servers of docker-compose.yml, with a name server and ports of our own in place of Docker's."""
    text = COMPOSE_SERVERS.read_text()
    for ours, theirs in (
        ("parse-resolv-conf", f"nameserver test udp@127.0.0.1:{names.port}"),
        ("vllm:8101", f"vllm:{vllm_port}"),
        ("bind :3000", f"bind 127.0.0.1:{free_loopback_port()}"),
    ):
        assert text.count(ours) == 1
        text = text.replace(ours, theirs)
    path = folder / "servers.cfg"
    path.write_text(text)
    return path


def test_replicas_are_found_by_name_and_others_keep_their_slides_when_some_come_and_go(tmp_path: Path) -> None:
    port = free_loopback_port()
    replicas = {f"127.0.0.{number}": f"vllm{number}" for number in (2, 3, 4)}
    with ExitStack() as stack:
        for address, name in replicas.items():
            stack.enter_context(stand_in(name, (address, port)))
        names = stack.enter_context(name_server())
        servers = composes_servers(tmp_path, names, port)
        haproxy = stack.enter_context(running_haproxy(tmp_path, servers))
        client = stack.enter_context(httpx.Client(timeout=30))

        def scaled_to(*addresses: str) -> dict[str, str]:
            names.addresses["vllm"] = list(addresses)
            wanted = {replicas[address] for address in addresses}
            wait_until(lambda: {ask(client, haproxy, slide) for slide in SLIDES[:40]} == wanted)
            return {slide: ask(client, haproxy, slide) for slide in SLIDES}

        two = scaled_to("127.0.0.2", "127.0.0.3")
        three = scaled_to("127.0.0.4", "127.0.0.3", "127.0.0.2")
        without_first = scaled_to("127.0.0.3", "127.0.0.4")

    assert {three[slide] for slide in moved(two, three)} == {"vllm4"}
    assert moved(three, without_first) == {slide for slide in SLIDES if three[slide] == "vllm2"}

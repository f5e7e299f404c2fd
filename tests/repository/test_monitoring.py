"""deploy/prometheus and deploy/grafana: valid, tried, and about numbers that exist."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from haproxy_process import needs_haproxy, running_haproxy, servers_file
from metric_names import HAPROXY, VLLM, asked_for, own_metrics, unknown_metrics
from stand_in_server import stand_in

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((GRAFANA / "dashboards" / "eyepiece.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
VLLM_METRICS = ROOT / ".venv-vllm/lib/python3.11/site-packages/vllm/v1/metrics/loggers.py"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def expressions_of(panel: dict[str, Any]) -> list[str]:
    return [target["expr"] for target in panel["targets"]]


def promtool(*arguments: str, folder: Path = PROMETHEUS) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_accepts_the_configuration_and_the_rules() -> None:
    promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_the_alerts_fire_when_they_should_and_are_silent_otherwise() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_every_alert_is_tried() -> None:
    tried = (PROMETHEUS / "alerts_test.yml").read_text()

    assert not [alert["alert"] for alert in ALERTS if alert["alert"] not in tried]


@needs_promtool
def test_prometheus_accepts_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    expressions = [text.replace("$__rate_interval", "1m") for panel in PANELS for text in expressions_of(panel)]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))

    promtool("check", "rules", "rules.yml", folder=tmp_path)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_every_alert_is_about_metrics_that_exist(alert: dict[str, Any]) -> None:
    assert asked_for(alert["expr"])
    assert unknown_metrics(alert["expr"]) == set()


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_every_panel_is_about_metrics_that_exist(panel: dict[str, Any]) -> None:
    for expression in expressions_of(panel):
        assert asked_for(expression)
        assert unknown_metrics(expression) == set()


def test_names_in_an_expression_are_found_whatever_stands_around_them() -> None:
    expression = 'max by (a, le) (rate(no_such_total{job=~"x|y", b="z"}[5m] offset 10m)) > 0.5 * up and on(c) vllm:x'

    assert asked_for(expression) == {"no_such_total", "up", "vllm:x"}
    assert unknown_metrics(expression) == {"no_such_total", "vllm:x"}


def test_every_number_of_the_workers_tile_encoder_is_known_by_the_name_that_is_sent() -> None:
    assert {"eyepiece_tile_encoder_busy_seconds_total", "eyepiece_build_info"} <= own_metrics()


@pytest.mark.skipif(not VLLM_METRICS.is_file(), reason="vLLM is not installed")
def test_vllm_has_the_metrics_that_are_said_to_be_its_own() -> None:
    source = VLLM_METRICS.read_text()
    named = {re.sub("_(total|bucket)$", "", name) for name in VLLM}

    assert not [name for name in named if f'"{name}"' not in source]


@needs_haproxy
def test_haproxy_sends_the_metrics_that_are_said_to_be_its_own(tmp_path: Path) -> None:
    with stand_in("api1") as api, stand_in("vllm1") as vllm:
        servers = servers_file(tmp_path, [api.port], [vllm.port])
        with running_haproxy(tmp_path, servers) as haproxy:
            sent = httpx.get(f"{haproxy.metrics_url}/metrics").text

    assert set(re.findall(r"^([a-z_]+)[{ ]", sent, re.MULTILINE)) >= HAPROXY
    assert 'proxy="llm",server="vllm1",state="DOWN"' in sent


def test_every_service_is_asked_at_the_port_of_its_metrics() -> None:
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    asked = {job["job_name"]: job["dns_sd_configs"][0] for job in configuration["scrape_configs"]}

    assert {name: it["port"] for name, it in asked.items()} == {
        "api": 8000,
        "worker": int(COMPOSE["services"]["worker"]["environment"]["EYEPIECE_WORKER_PORT"]),
        "vllm": 8101,
        "haproxy": 8405,
    }
    assert all(it["names"] == [name] and name in COMPOSE["services"] for name, it in asked.items())


def test_every_alert_says_how_bad_it_is_and_which_section_helps() -> None:
    runbook = (ROOT / "docs" / "operations.md").read_text()
    titles = re.findall(r"^#+ (.+)$", runbook, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}

    for alert in ALERTS:
        page, anchor = alert["annotations"]["runbook"].split("#")
        assert page == "docs/operations.md"
        assert anchor in anchors, alert["alert"]
        assert alert["labels"]["severity"] in ("critical", "warning")


def test_grafana_finds_its_data_source_and_its_dashboard_where_they_are_mounted() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    providers = yaml.safe_load((GRAFANA / "provisioning/dashboards/eyepiece.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2][::-1] for volume in COMPOSE["services"]["grafana"]["volumes"])

    assert sources[0]["url"] == "http://prometheus:9090"
    assert mounts[providers[0]["options"]["path"]] == "./deploy/grafana/dashboards"
    assert mounts["/etc/grafana/provisioning"] == "./deploy/grafana/provisioning"


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]

    assert len(set(ids)) == len(ids)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24

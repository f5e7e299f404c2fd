"""deploy/helm/eyepiece: rendered by Helm's own engine where it is installed, then held against Kubernetes' schemas."""

import json
import os
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_lines import parse_command_line
from haproxy_process import RULES, check_configuration, needs_haproxy
from metric_names import unknown_metrics

from server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "eyepiece"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
KUBERNETES = ("1.27", "1.34")
OF_OPERATORS = {"keda.sh/v1alpha1", "monitoring.coreos.com/v1"}
MIG = "nvidia.com/mig-3g.40gb"

SMALLEST: dict[str, Any] = {"secrets": {"existingSecret": "passwords"}}
LARGEST: dict[str, Any] = {
    **SMALLEST,
    "image": {"registry": "registry.example.org/eyepiece", "tag": "0.2.0", "pullSecrets": [{"name": "pull"}]},
    "model": "wsi-llava",
    "models": {"existingClaim": "models"},
    "store": {"url": "s3://slides/here", "secretEnvironment": "bucket"},
    "api": {"secretEnvironment": "archives"},
    "audit": {"enabled": True, "questions": True},
    "settings": {"EYEPIECE_MAX_QUEUED_JOBS": "500"},
    "worker": {
        "gpuResource": MIG,
        "runtimeClassName": "nvidia",
        "nodeSelector": {"gpu": "yes"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "autoscaling": {"enabled": True, "prometheusUrl": "http://prometheus.monitoring:9090"},
    },
    "vllm": {"replicas": 2, "gpus": 2, "extraArguments": ["--max-num-seqs", "64"]},
    "redis": {"enabled": False},
    "ingress": {"enabled": True, "host": "eyepiece.example.org", "className": "nginx", "tlsSecret": "tls"},
    "networkPolicies": {
        "clients": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}],
        "monitoring": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "storeEgress": [{"ports": [{"port": 443}]}],
        "apiEgress": [{"ports": [{"port": 8042}]}],
    },
    "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
}
WITHOUT_GPUS: dict[str, Any] = {**SMALLEST, "worker": {"gpus": 0}, "vllm": {"gpus": 0}}
SEVERAL: dict[str, Any] = {
    **LARGEST,
    "otherModels": [
        {"name": "hwsi_1.5", "vllm": {"gpus": 1, "maxReplicas": 3}, "worker": {"autoscaling": {"maxReplicas": 2}}},
        {"name": "demo"},
    ],
}
RELEASES = {"smallest": SMALLEST, "largest": LARGEST, "several models": SEVERAL}
RENDERED = {**RELEASES, "without GPUs": WITHOUT_GPUS}

Objects = list[dict[str, Any]]


@cache
def rendered(which: str) -> Objects:
    """All objects of a release called `rel` in the namespace `path`."""
    charts = pytest.importorskip("helm_python.chart", reason="helm-python-sdk (Helm's engine) is not installed")
    with charts.Chart.load(CHART) as chart:
        texts = chart.render(values=RENDERED[which], name="rel", namespace="path")
    documents = [text for name, text in sorted(texts.items()) if name.endswith(".yaml")]
    return [found for text in documents for found in yaml.safe_load_all(text) if found]


def of_kind(objects: Objects, *kinds: str) -> dict[str, dict[str, Any]]:
    """By name."""
    return {found["metadata"]["name"]: found for found in objects if found["kind"] in kinds}


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """The pod templates, by the name of what makes them."""
    made = of_kind(objects, "Deployment", "StatefulSet")
    return {name.removeprefix("rel-eyepiece-"): found["spec"]["template"] for name, found in made.items()}


def containers(pod: dict[str, Any]) -> Objects:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def matches(selector: dict[str, str], pod: dict[str, Any]) -> bool:
    return bool(selector.items() <= pod["metadata"]["labels"].items())


# What needs no engine.


def paths(values: dict[str, Any], schema: dict[str, Any], at: str = "") -> list[str]:
    """The values that the schema does not know."""
    known = schema.get("properties")
    if known is None:
        return []
    unknown = [f"{at}.{name}" for name in values if name not in known]
    nested = [(name, value) for name, value in values.items() if name in known and isinstance(value, dict)]
    return unknown + [path for name, value in nested for path in paths(value, known[name], f"{at}.{name}")]


def test_the_schema_knows_every_value_and_refuses_any_other() -> None:
    objects = [SCHEMA, *(part for part in SCHEMA["properties"].values() if "properties" in part)]

    assert paths(VALUES, SCHEMA) == []
    assert all(part["additionalProperties"] is False for part in objects)


def test_the_chart_has_the_version_of_what_it_installs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert str(chart["appVersion"]) == project["version"]


@pytest.mark.parametrize("name", ["haproxy/haproxy.cfg", "prometheus/alerts.yml", "grafana/dashboards/eyepiece.json"])
def test_what_compose_uses_too_is_linked_and_not_copied(name: str) -> None:
    link = CHART / "files" / Path(name).name

    assert link.is_symlink()
    assert not os.readlink(link).startswith("/")
    assert link.resolve() == ROOT / "deploy" / name


# What Helm makes of it.


@pytest.mark.parametrize("which", RELEASES)
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_accepts_every_object(which: str, version: str) -> None:
    objects = rendered(which)
    kubernetes = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")

    for found in objects:
        if found["apiVersion"] not in OF_OPERATORS:
            kubernetes.validate(found, version, strict=True)


def test_helm_finds_nothing_wrong() -> None:
    charts = pytest.importorskip("helm_python.chart")
    report = charts.lint(CHART, LARGEST, strict=True)

    assert report["errors"] == []
    assert [it["error"] for it in report["messages"] if it["severity"] > 1] == []


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "existingSecret"),
        ({**SMALLEST, "replicas": 3}, "replicas"),
        ({**SMALLEST, "settings": {"PATH": "/tmp"}}, "PATH"),
        ({**SMALLEST, "model": "wsi-llava"}, "models.existingClaim"),
        ({**SMALLEST, "worker": {"autoscaling": {"enabled": True}}}, "prometheusUrl"),
        ({**SMALLEST, "monitoring": {"enabled": True}}, "networkPolicies.monitoring"),
    ],
)
def test_what_cannot_work_is_refused_with_a_reason(values: dict[str, Any], reason: str) -> None:
    charts = pytest.importorskip("helm_python.chart")
    with charts.Chart.load(CHART) as chart, pytest.raises(Exception, match=re.escape(reason)):
        chart.render(values=values, name="rel", namespace="path")


@pytest.mark.parametrize("which", RELEASES)
def test_every_pod_meets_kubernetes_restricted_profile_and_writes_only_where_it_is_said(which: str) -> None:
    for name, pod in pods(rendered(which)).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize(
    ("which", "worker", "vllm"),
    [("smallest", {"nvidia.com/gpu": 1}, {"nvidia.com/gpu": 1}), ("largest", {MIG: 1}, {"nvidia.com/gpu": 2})],
)
def test_gpus_are_asked_for_by_the_name_of_the_device_plugin(
    which: str, worker: dict[str, int], vllm: dict[str, int]
) -> None:
    found = pods(rendered(which))

    for name, expected in (("worker", worker), ("vllm", vllm)):
        limits = found[name]["spec"]["containers"][0]["resources"]["limits"]
        assert {it: limits[it] for it in limits if it != "memory"} == expected


@pytest.mark.parametrize("which", RELEASES)
def test_models_are_read_only_and_vllm_sees_nothing_of_any_tenant(which: str) -> None:
    found = pods(rendered(which))
    mounts = {
        name: {
            mount["name"]: mount.get("readOnly", False)
            for mount in found[name]["spec"]["containers"][0]["volumeMounts"]
        }
        for name in ("api", "worker", "vllm")
    }
    environment = {it["name"] for it in found["vllm"]["spec"]["containers"][0]["env"]}

    assert all(mounts[name]["models"] is True for name in mounts)
    assert set(mounts["vllm"]) == {"models", "cache", "tmp", "shared-memory"}
    assert environment == {"EYEPIECE_MODEL", "EYEPIECE_LLM_API_KEY", "EYEPIECE_TENSOR_PARALLEL_SIZE"}


@pytest.mark.parametrize("which", RELEASES)
def test_every_command_and_every_setting_exists(which: str) -> None:
    known = {f"EYEPIECE_{name.upper()}" for name in Settings.model_fields} | {"REDIS_PASSWORD"}
    found = pods(rendered(which))

    for name in ("api", "worker", "vllm"):
        for container in containers(found[name]):
            parse_command_line(container["args"])
            assert {it["name"] for it in container.get("env", [])} <= known


@pytest.mark.parametrize("which", RELEASES)
def test_a_worker_answers_the_probes_and_prometheus_of_its_cluster(which: str) -> None:
    worker = pods(rendered(which))["worker"]["spec"]["containers"][0]
    told = {it["name"]: it.get("value") for it in worker["env"]}

    assert told["EYEPIECE_WORKER_HOST"] == "0.0.0.0"
    assert worker["ports"] == [{"name": "health", "containerPort": int(told["EYEPIECE_WORKER_PORT"])}]


@pytest.mark.parametrize("which", RENDERED)
def test_the_tag_of_an_image_says_which_builds_it_has(which: str) -> None:
    """By the GPUs; the API has neither."""
    tag, prefix = (
        ("0.2.0", "registry.example.org/eyepiece/") if which in ("largest", "several models") else ("0.1.0", "")
    )
    builds = "cpu" if which == "without GPUs" else "cuda"

    ours = {
        it["image"] for pod in pods(rendered(which)).values() for it in containers(pod) if "eyepiece-" in it["image"]
    }

    assert ours == {
        f"{prefix}eyepiece-{name}" for name in (f"api:{tag}", f"worker:{tag}-{builds}", f"vllm:{tag}-{builds}")
    }


@pytest.mark.parametrize("which", RELEASES)
def test_secrets_come_from_a_secret_and_stand_in_no_argument(which: str) -> None:
    for pod in pods(rendered(which)).values():
        for container in containers(pod):
            assert "passwords" not in str(container.get("args", "")) + str(container.get("command", ""))
            secrets = [it for it in container.get("env", []) if re.search("PASSWORD|KEY", it["name"])]
            assert all(it["valueFrom"]["secretKeyRef"]["name"] == "passwords" for it in secrets)


@pytest.mark.parametrize("which", RELEASES)
def test_every_selector_finds_the_pods_that_it_is_for(which: str) -> None:
    objects, found = rendered(which), pods(rendered(which))
    chosen = {
        "Service": lambda spec: spec["selector"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        "PodMonitor": lambda spec: spec["selector"]["matchLabels"],
    }

    for kind, selector_of in chosen.items():
        for name, it in of_kind(objects, kind).items():
            part = name.removeprefix("rel-eyepiece-")
            if part == "redis" and part not in found:
                continue  # the policy of a Redis that is elsewhere has nothing to do
            assert [other for other, pod in found.items() if matches(selector_of(it["spec"]), pod)] == [part]


@pytest.mark.parametrize("which", RELEASES)
def test_every_port_that_is_named_is_open(which: str) -> None:
    objects, found = rendered(which), pods(rendered(which))
    named = {
        name: {
            port["name"]: port["containerPort"]
            for container in pod["spec"]["containers"]
            for port in container["ports"]
        }
        for name, pod in found.items()
    }

    for name, service in of_kind(objects, "Service").items():
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(
            named[name.removeprefix("rel-eyepiece-")]
        )
    for name, monitor in of_kind(objects, "PodMonitor").items():
        assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in named[name.removeprefix("rel-eyepiece-")]
    for name, pod in found.items():
        for container in pod["spec"]["containers"]:
            probes = [
                container[it]["httpGet"]["port"]
                for it in container
                if it.endswith("Probe") and "httpGet" in container[it]
            ]
            assert set(probes) <= set(named[name])


@pytest.mark.parametrize("which", RELEASES)
def test_vllm_and_redis_are_reached_by_those_who_need_them_and_reach_nobody(which: str) -> None:
    policies = of_kind(rendered(which), "NetworkPolicy")
    allowed = {}
    for name in ("vllm", "redis"):
        spec = policies[f"rel-eyepiece-{name}"]["spec"]
        assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
        assert spec["egress"] == []
        peers = [peer for rule in spec["ingress"] for peer in rule["from"]]
        allowed[name] = [
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in peers if "podSelector" in peer
        ]
        others = [peer for peer in peers if "podSelector" not in peer]
        assert others == (RELEASES[which].get("networkPolicies", {}).get("monitoring", []) if name == "vllm" else [])

    workers = [name for name in pods(rendered(which)) if name.startswith("worker")]
    assert allowed["vllm"] == ["haproxy"]
    assert sorted(allowed["redis"]) == sorted(["api", *workers])


def test_archives_are_named_to_the_api_alone_and_reached_by_it_alone() -> None:
    objects = rendered("several models")
    told = {
        name: [it["secretRef"]["name"] for it in pod["spec"]["containers"][0].get("envFrom", [])]
        for name, pod in pods(objects).items()
    }
    policies = of_kind(objects, "NetworkPolicy").items()
    reaching = [name for name, policy in policies if {"ports": [{"port": 8042}]} in policy["spec"]["egress"]]

    assert [name for name, secrets in told.items() if "archives" in secrets] == ["api"]
    assert told["api"] == ["bucket", "archives"]
    assert reaching == ["rel-eyepiece-api"]


@pytest.mark.parametrize(("which", "is_on"), [("smallest", False), ("largest", True), ("several models", True)])
def test_the_audit_log_is_off_and_when_on_a_volume_of_its_own_that_the_api_alone_has(which: str, is_on: bool) -> None:
    objects = rendered(which)
    having = {
        name: [
            it["mountPath"]
            for container in containers(pod)
            for it in container["volumeMounts"]
            if it["name"] == "audit"
        ]
        for name, pod in pods(objects).items()
    }
    told = {it["name"]: it.get("value") for it in pods(objects)["api"]["spec"]["containers"][0]["env"]}
    claims = of_kind(objects, "PersistentVolumeClaim")

    folder = "/var/lib/eyepiece/audit"
    assert {name for name, found in having.items() if found} == ({"api"} if is_on else set())
    assert having["api"] == ([folder] if is_on else [])
    assert told.get("EYEPIECE_AUDIT_DIR") == (folder if is_on else None)
    assert told.get("EYEPIECE_AUDIT_QUESTIONS") == ("true" if is_on else None)
    assert ("rel-eyepiece-audit" in claims) is is_on
    if is_on:
        (volume,) = [it for it in pods(objects)["api"]["spec"]["volumes"] if it["name"] == "audit"]
        assert volume["persistentVolumeClaim"] == {"claimName": "rel-eyepiece-audit"}
        assert claims["rel-eyepiece-audit"]["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


@pytest.mark.parametrize("which", RELEASES)
def test_haproxy_has_the_same_rules_as_everywhere_and_the_names_of_the_replicas(which: str) -> None:
    objects = rendered(which)
    configuration = of_kind(objects, "ConfigMap")["rel-eyepiece-haproxy"]["data"]
    replicas = of_kind(objects, "StatefulSet")["rel-eyepiece-vllm"]
    (of_default,) = re.findall(r"^backend llm from [^\n]+\n((?: +.+\n?)+)", configuration["servers.cfg"], re.MULTILINE)
    servers = re.findall(r"^ +server (\S+) (\S+):8101 ", of_default, re.MULTILINE)

    assert configuration["haproxy.cfg"].strip() == RULES.read_text().strip()
    assert len(servers) == VALUES["vllm"]["maxReplicas"] >= replicas["spec"]["replicas"]
    service = replicas["spec"]["serviceName"]
    assert servers[1] == ("vllm1", f"{replicas['metadata']['name']}-1.{service}.path.svc.cluster.local")
    assert service in of_kind(objects, "Service")


@needs_haproxy
@pytest.mark.parametrize("which", RELEASES)
def test_haproxy_accepts_what_helm_made(which: str, tmp_path: Path) -> None:
    configuration = of_kind(rendered(which), "ConfigMap")["rel-eyepiece-haproxy"]["data"]
    files = []
    for name in ("haproxy.cfg", "servers.cfg"):
        files.append(tmp_path / name)
        files[-1].write_text(configuration[name])

    assert check_configuration(*files) == ""


def test_vllm_splits_its_model_over_the_gpus_that_it_gets() -> None:
    [vllm] = pods(rendered("largest"))["vllm"]["spec"]["containers"]
    [smallest] = pods(rendered("smallest"))["vllm"]["spec"]["containers"]

    said = {it["name"]: it.get("value") for it in vllm["env"]}
    assert said["EYEPIECE_TENSOR_PARALLEL_SIZE"] == str(vllm["resources"]["limits"]["nvidia.com/gpu"]) == "2"
    assert {"name": "EYEPIECE_TENSOR_PARALLEL_SIZE", "value": "1"} in smallest["env"]


def test_workers_scale_on_numbers_that_exist() -> None:
    scaled = of_kind(rendered("largest"), "ScaledObject")["rel-eyepiece-worker"]["spec"]
    trigger = scaled["triggers"][0]["metadata"]

    assert "replicas" not in of_kind(rendered("largest"), "Deployment")["rel-eyepiece-worker"]["spec"]
    assert unknown_metrics(trigger["query"]) == set()
    assert {"eyepiece_jobs_queued", "eyepiece_jobs_active"} <= set(re.findall(r"\w+", trigger["query"]))


def test_each_model_has_a_vllm_workers_and_a_scale_of_its_own() -> None:
    objects, found = rendered("several models"), pods(rendered("several models"))
    told = {
        name: {it["name"]: it.get("value") for it in pod["spec"]["containers"][0].get("env", [])}
        for name, pod in found.items()
    }
    scaled = of_kind(objects, "ScaledObject")
    service = of_kind(objects, "Service")["rel-eyepiece-haproxy"]["spec"]["ports"]
    servers = of_kind(objects, "ConfigMap")["rel-eyepiece-haproxy"]["data"]["servers.cfg"]
    served = Settings(models=told["api"]["EYEPIECE_MODELS"]).served_models

    assert [it.name for it in served] == ["wsi-llava", "hwsi_1.5", "demo"]
    ports = [int(it.url.rpartition(":")[2]) for it in served]
    assert ports == [it["port"] for it in service if it["name"].startswith("llm")] == [8101, 8111, 8112]
    for name, model in {"": "wsi-llava", "-hwsi-1-5": "hwsi_1.5", "-demo": "demo"}.items():
        assert told[f"vllm{name}"]["EYEPIECE_MODEL"] == model
        assert told[f"worker{name}"]["EYEPIECE_MODELS"] == told["api"]["EYEPIECE_MODELS"]
        assert Settings(
            models=told["api"]["EYEPIECE_MODELS"], worker_models=told[f"worker{name}"]["EYEPIECE_WORKER_MODELS"]
        ).encoded_models == (model,)
        trigger = scaled[f"rel-eyepiece-worker{name}"]["spec"]["triggers"][0]["metadata"]
        assert trigger["query"].count(f'model="{model}"') == 2
    assert scaled["rel-eyepiece-worker-hwsi-1-5"]["spec"]["maxReplicaCount"] == 2
    assert told["vllm-hwsi-1-5"]["EYEPIECE_TENSOR_PARALLEL_SIZE"] == "1"
    assert servers.count("rel-eyepiece-vllm-hwsi-1-5.path.svc") == 3
    # With one model nothing is said of others.
    one = pods(rendered("largest"))["worker"]["spec"]["containers"][0]["env"]
    assert not {"EYEPIECE_MODELS", "EYEPIECE_WORKER_MODELS"} & {it["name"] for it in one}


def test_alerts_and_dashboard_arrive_unchanged() -> None:
    objects = rendered("largest")
    rules = of_kind(objects, "PrometheusRule")["rel-eyepiece"]["spec"]
    dashboard = of_kind(objects, "ConfigMap")["rel-eyepiece-dashboard"]["data"]["eyepiece.json"]

    assert rules == yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    assert dashboard == (ROOT / "deploy/grafana/dashboards/eyepiece.json").read_text()


def test_a_pod_has_time_for_what_it_answers() -> None:
    grace_s = Settings.model_fields["shutdown_grace_s"].default

    for name, pod in pods(rendered("smallest")).items():
        assert pod["spec"]["terminationGracePeriodSeconds"] > grace_s, name

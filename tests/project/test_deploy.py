"""Check each file of deploy/ with the program it is for, and its options with those of the command."""

import asyncio
import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import check_jsonschema.builtin_schemas as schemas
import jsonschema_rs
import kubernetes_validate
import pytest
import redis
import yaml

from crawler.cli.flags import flags_of
from crawler.cli.main import app
from crawler.core.options import Options
from crawler.core.service_options import ServiceOptions
from crawler.distributed.chunk_queue import QUEUES, ChunkQueue
from crawler.stores.redis.registry import RedisRegistry
from tests.support.api import serving_api
from tests.support.documents import ROOT
from tests.support.fleet import working
from tests.support.process import Served
from tests.support.redis_server import RedisServer
from tests.support.shipped import BIN, DEPLOY, read_shipped
from tests.support.site import Site

COMMANDS: Final = {command.callback.__name__ for command in app.registered_commands if command.callback}
FLAGS: Final = {flag.field: flag for record in (ServiceOptions, Options) for flag in flags_of(record)}
MAX_DRAIN_SECONDS: Final = FLAGS["drain"].type.le
STOP_SECONDS: Final = 10  # of a stop, besides the drain: answers are cut off, chunks are returned
TEXTS: Final = [
    path for path in sorted(DEPLOY.rglob("*")) if path.is_file() and path.parent.name not in ("grafana", "prometheus")
]


def run_program(*command: str | Path, **more: Any) -> str:
    """Run a program, which has to succeed, and return its output and errors."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


# --- Options of the command, in all files ---


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_files_name_only_options_that_the_command_has(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    names = {name for flag in FLAGS.values() for name in flag.names}
    variables = {name for flag in FLAGS.values() for name in (flag.variable.name, flag.variable.list_name)}
    assert set(re.findall(r"\bCRAWLER_[A-Z_]+", text)) <= variables
    for comment in re.findall(r"# (.*)", text):
        if not re.match(r" *(docker|kubectl) ", comment):
            assert set(re.findall(r"(?<!\S)`?(--[a-z-]+)", comment)) <= names


# --- Dockerfile ---


def instructions(name: str) -> list[str]:
    """Return the arguments of one kind of instruction of the Dockerfile."""
    lines = re.sub(r"\\\n", "", read_shipped("Dockerfile")).splitlines()
    return [line.partition(" ")[2].strip() for line in lines if line.startswith(f"{name} ")]


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert run_program(BIN / "hadolint", DEPLOY / "Dockerfile") == ""


def test_the_image_copies_existing_files_and_runs_as_a_plain_user() -> None:
    sources = [source for copy in instructions("COPY") for source in copy.split()[:-1]]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    kept = {line[1:] for line in read_shipped("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    assert set(sources) == kept
    assert set(re.findall(r"^    (LICENSE)$", (ROOT / "setup.cfg").read_text(), re.M)) <= kept
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", instructions("USER")[-1])
    assert instructions("ENTRYPOINT") == ['["crawler"]']


async def exit_code(command: list[str]) -> int:
    process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL)
    return await process.wait()


async def test_the_health_check_of_the_image_follows_the_service(tmp_path: Path) -> None:
    check = json.loads(instructions("HEALTHCHECK")[0].partition(" CMD ")[2])[1:]
    async with Served("--registry", f"sqlite:///{tmp_path}/tasks.db") as service:
        command = [sys.executable, *(part.replace(":7777", f":{service.port}") for part in check)]
        assert await exit_code(command) == 0
    assert await exit_code(command) == 1


# --- Compose ---


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(read_shipped("compose.yaml"))


def test_the_compose_file_follows_its_schema(compose: Any) -> None:
    schema = json.loads((files(schemas) / "vendor/compose-spec.json").read_text())
    errors = jsonschema_rs.validator_for(schema).iter_errors(compose)
    assert [(error.message, error.instance_path) for error in errors] == []
    asked = set(re.findall(r"\$\{(\w+)", read_shipped("compose.yaml")))
    assert asked == set(re.findall(r"^(\w+)=", read_shipped(".env.example"), re.M))


def test_only_the_proxy_is_reached_from_outside(compose: Any) -> None:
    services = compose["services"]
    assert {name for name, each in services.items() if "ports" in each} == {"proxy"}
    assert services["redis"]["networks"] == ["store"]
    assert compose["networks"]["store"]["internal"]
    assert "store" not in services["proxy"]["networks"]
    subnet = compose["networks"]["front"]["ipam"]["config"][0]["subnet"]
    assert services["service-1"]["environment"]["CRAWLER_FORWARDED_ALLOW"] == subnet


def test_each_service_of_compose_is_confined_and_has_time_to_stop(compose: Any) -> None:
    for name, each in compose["services"].items():
        assert each["restart"] == "unless-stopped"
        assert each["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
        if name != "redis":
            assert (each["read_only"], each["cap_drop"]) == (True, ["ALL"])
        if each["image"] == "crawler":
            assert int(each["stop_grace_period"].removesuffix("s")) >= MAX_DRAIN_SECONDS + STOP_SECONDS
        assert set(each.get("secrets", [])) <= compose["secrets"].keys()


def test_traefik_has_both_services_as_servers(compose: Any) -> None:
    shown = yaml.safe_load(re.sub(r"\{\{ if .*?\}\}(.*?)\{\{ end \}\}", r"\1", read_shipped("traefik.yaml")))["http"]
    router = shown["routers"]["crawler"]
    assert router["tls"] == {"certResolver": "acme"}
    assert set(router["middlewares"]) <= shown["middlewares"].keys()
    servers = shown["services"][router["service"]]["loadBalancer"]["servers"]
    assert [each["url"] for each in servers] == ["http://service-1:7777", "http://service-2:7777"]
    assert {"service-1", "service-2"} <= compose["services"].keys()


async def test_the_redis_user_may_do_only_what_is_needed(site: Site, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(
        read_shipped("redis_users.example").replace("PASSWORD", "secret") + "user admin on nopass ~* &* +@all\n"
    )
    with RedisServer(settings=[f"--aclfile {users}"]) as server:  # one argument, as in the manifests
        with server.client() as stranger, pytest.raises(redis.exceptions.NoPermissionError):
            stranger.flushall()
        url = server.url.replace("unix://", "unix://crawler:secret@")
        async with serving_api(RedisRegistry(url)) as api, working(url):
            task = await api.submit([site.url("/ok"), site.url("/status/404")])
            assert (await api.get(f"/tasks/{task['id']}", wait=30))["status"] == "ready"
            async with api.client.post(f"/api/v1/tasks/{task['id']}/recheck", json={}) as response:
                assert response.status == 201
            async with api.client.get("/metrics") as response:
                assert response.status == 200
            async with api.client.delete(f"/tasks/{task['id']}") as response:
                assert response.status == 204
        with redis.Redis.from_url(server.url.replace("unix://", "unix://admin:any@")) as admin:
            assert [entry for entry in admin.acl_log() if entry["username"] == "crawler"] == []


# --- Kubernetes ---

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def manifests() -> list[Manifest]:
    """The resources of all files that `kubectl apply` reads."""
    kustomization = yaml.safe_load(read_shipped("kubernetes/kustomization.yaml"))
    names = {path.name for path in (DEPLOY / "kubernetes").iterdir()} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == names
    return [each for name in sorted(names) for each in yaml.safe_load_all(read_shipped(f"kubernetes/{name}"))]


def of_kind(manifests: list[Manifest], *kinds: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] in kinds}


def test_kubernetes_knows_every_field(manifests: list[Manifest]) -> None:
    for each in manifests:
        if not each["apiVersion"].startswith("keda.sh/"):  # there is no schema of KEDA's resources here
            kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_the_manifests_name_only_what_they_define(manifests: list[Manifest]) -> None:
    pods = of_kind(manifests, "Deployment", "StatefulSet")
    for name, workload in pods.items():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert workload["spec"]["selector"]["matchLabels"] == labels == {"app": name}
    for name, service in of_kind(manifests, "Service").items():
        assert service["spec"]["selector"] == {"app": name}
        ports = [port["name"] for port in pods[name]["spec"]["template"]["spec"]["containers"][0]["ports"]]
        assert [port["targetPort"] for port in service["spec"]["ports"]] == ports
    for name, budget in of_kind(manifests, "PodDisruptionBudget").items():
        assert budget["spec"]["selector"]["matchLabels"] == {"app": name}
        assert name in pods
    for name, scaler in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject").items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert name in pods
    backend = of_kind(manifests, "Ingress")["crawler"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "crawler", "port": {"name": "http"}}
    chosen = [
        rule
        for policy in of_kind(manifests, "NetworkPolicy").values()
        for rule in re.findall(r"'app': '(\w+)'|'values': \[(.*?)\]", str(policy))
    ]
    assert set(re.findall(r"\w+", str(chosen))) == pods.keys()


def test_each_pod_is_confined_and_has_time_to_stop(manifests: list[Manifest]) -> None:
    for name, workload in of_kind(manifests, "Deployment", "StatefulSet").items():
        pod = workload["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["enableServiceLinks"] is False  # the variables of a Service look like options
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
        }  # fmt: skip
        assert container["resources"].keys() == {"requests", "limits"}
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed
        if name != "redis":
            assert container["args"][0] in COMMANDS
            before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            assert pod["terminationGracePeriodSeconds"] >= before + MAX_DRAIN_SECONDS + STOP_SECONDS


def test_kubernetes_probes_the_health_of_services(manifests: list[Manifest]) -> None:
    container = of_kind(manifests, "Deployment")["crawler"]["spec"]["template"]["spec"]["containers"][0]
    paths = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
    assert paths == ["/readyz", "/readyz", "/healthz"]


def test_workers_are_scaled_by_the_queues_of_chunks(manifests: list[Manifest]) -> None:
    triggers = of_kind(manifests, "ScaledObject")["worker"]["spec"]["triggers"]
    queue = ChunkQueue(RedisRegistry("redis://localhost"))
    assert [each["metadata"]["stream"] for each in triggers] == [queue.dockets[kind].stream_key for kind in QUEUES]
    assert {each["authenticationRef"]["name"] for each in triggers} == of_kind(
        manifests, "TriggerAuthentication"
    ).keys()


def test_the_document_creates_each_secret_of_the_manifests(manifests: list[Manifest]) -> None:
    asked = set(re.findall(r"'key': '([a-z_]+)'", str([each for each in manifests if each["kind"] != "NetworkPolicy"])))
    document = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--from-(?:file|literal)=(?:\S*/)?(\w+)", document)) == asked


# --- systemd ---

UNITS: Final = ("crawler.service", "crawler-worker@1.service")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units, whose command exists."""
    for unit in UNITS:
        text = read_shipped(f"systemd/{unit.replace('@1', '@')}")
        assert "ExecStart=/opt/crawler/bin/crawler " in text
        (tmp_path / unit).write_text(text.replace("/opt/crawler/bin/crawler", "/bin/true"))
    return tmp_path


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_unit_and_rates_it_safe(unit: str, units: Path) -> None:
    assert run_program("systemd-analyze", "verify", units / unit) == ""
    run_program("systemd-analyze", "security", "--offline=true", "--threshold=20", units / unit)


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_waits_until_the_service_has_stopped(unit: str, units: Path) -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", (units / unit).read_text(), re.M))
    assert int(settings["TimeoutStopSec"]) >= MAX_DRAIN_SECONDS + STOP_SECONDS
    assert (settings["Type"], settings["KillMode"], settings["Restart"]) == ("notify", "mixed", "on-failure")
    assert settings["ExecStart"].split()[-1] in COMMANDS


# --- Proxies; test_replicas.py runs them ---


def test_caddy_accepts_its_file(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin"}
    file = DEPLOY / "Caddyfile"
    said = run_program(BIN / "caddy", "validate", "--adapter", "caddyfile", "--config", file, env=environment)
    assert "Valid configuration" in said
    assert run_program(BIN / "caddy", "fmt", file, env=environment) == read_shipped("Caddyfile")

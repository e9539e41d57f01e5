"""Run the proxies of deploy/ with its files; addresses and certificates are replaced by those of the test."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.support.process import free_port
from tests.support.webserver import DEADLINE_SECONDS, NGINX

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
BIN: Final = Path(sys.executable).parent


class ProxySetup(NamedTuple):
    """What a test puts in place of the shipped addresses and certificates."""

    scratch: Path
    port: int
    service_ports: list[int]
    certificate: str  # a PEM file for localhost, with its key


_NGINX: Final = """
daemon off;
{user}
pid nginx.pid;
error_log stderr crit;
events {{}}
http {{
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
    access_log off;
    include {deploy}/nginx/crawler.conf;
}}
"""


def nginx(setup: ProxySetup) -> list[Any]:
    """Write the files of nginx and return its command."""
    (setup.scratch / "crawler").mkdir()
    user = "" if os.geteuid() else "user root;"  # a plain user could not read the files of a test that root runs
    (setup.scratch / "nginx.conf").write_text(_NGINX.format(deploy=DEPLOY, user=user))
    (setup.scratch / "crawler/replicas.conf").write_text(
        _with_test_ports(read_shipped("nginx/replicas.conf"), setup.service_ports)
    )
    site = re.sub(r"listen \[.*\n", "", read_shipped("nginx/site.conf")).replace("443", f"127.0.0.1:{setup.port}")
    site = re.sub(r"/etc/letsencrypt\S+(?=;)", setup.certificate, site)
    (setup.scratch / "crawler/site.conf").write_text(site)
    return [NGINX, "-p", setup.scratch, "-c", "nginx.conf"]


def caddy(setup: ProxySetup) -> list[Any]:
    """Write the file of Caddy and return its command."""
    text = _with_test_ports(read_shipped("Caddyfile"), setup.service_ports).replace(
        "crawler.example.org {", f"localhost:{setup.port} {{\ntls {setup.certificate} {setup.certificate}"
    )
    options = "{\nadmin off\nauto_https off\nlog {\nlevel ERROR\n}\nservers {\nprotocols h1 h2\n}\n}\n"
    (setup.scratch / "Caddyfile").write_text(options + text)
    return [BIN / "caddy", "run", "--adapter", "caddyfile", "--config", setup.scratch / "Caddyfile"]


def traefik(setup: ProxySetup) -> list[Any]:
    """Write the files of Traefik and return its command, with the flags of compose.yaml."""
    text = read_shipped("traefik.yaml")
    for number, port in enumerate(setup.service_ports, start=1):
        text = text.replace(f"service-{number}:7777", f"127.0.0.1:{port}")
    certificate = {"certFile": setup.certificate, "keyFile": setup.certificate}
    (setup.scratch / "crawler.yaml").write_text(text + "\n" + yaml.dump({"tls": {"certificates": [certificate]}}))
    own = {
        "=:80": f"=127.0.0.1:{free_port()}",
        "=:443": f"=127.0.0.1:{setup.port}",
        "/etc/traefik/": f"{setup.scratch}/",
        "/acme/": f"{setup.scratch}/",
        "${ACME_EMAIL:-}": "",
    }
    flags = yaml.safe_load(read_shipped("compose.yaml"))["services"]["proxy"]["command"]
    for shipped, ours in own.items():
        flags = [flag.replace(shipped, ours) for flag in flags]
    return [BIN / "traefik", *flags, "--log.level=ERROR"]


PROXIES: Final[dict[str, Callable[[ProxySetup], list[Any]]]] = {"nginx": nginx, "caddy": caddy, "traefik": traefik}


@contextmanager
def run_proxy(name: str, scratch: Path, service_ports: list[int], certificate: str) -> Iterator[int]:
    """Run a proxy in front of services on these ports; yields its port, on which it may not listen yet."""
    port = free_port()
    environment = {"DOMAIN": "localhost", "ACME_EMAIL": "", "HOME": str(scratch), "PATH": os.environ["PATH"]}
    process = subprocess.Popen(PROXIES[name](ProxySetup(scratch, port, service_ports, certificate)), env=environment)
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:  # as traefik does that still starts
            process.kill()
            process.wait()


def read_shipped(name: str) -> str:
    """Return the text of a file of deploy/."""
    return (DEPLOY / name).read_text(encoding="utf-8")


def _with_test_ports(text: str, service_ports: list[int]) -> str:
    for number, port in enumerate(service_ports, start=1):
        text = text.replace(f"10.0.0.1{number}:7777", f"127.0.0.1:{port}")
    return text

"""The proxies that deploy/ has files for, run with these files; addresses and certificates are of the test's own."""

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


class Where(NamedTuple):
    """What is a test's own."""

    scratch: Path
    port: int
    services: list[int]  # their ports
    certificate: str  # with its key, for localhost


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


def nginx(where: Where) -> list[Any]:
    """Its command, once its files are there."""
    (where.scratch / "crawler").mkdir()
    user = "" if os.geteuid() else "user root;"  # else it may not read a test's files
    (where.scratch / "nginx.conf").write_text(_NGINX.format(deploy=DEPLOY, user=user))
    (where.scratch / "crawler/replicas.conf").write_text(_placed(read("nginx/replicas.conf"), where.services))
    site = re.sub(r"listen \[.*\n", "", read("nginx/site.conf")).replace("443", f"127.0.0.1:{where.port}")
    site = re.sub(r"/etc/letsencrypt\S+(?=;)", where.certificate, site)
    (where.scratch / "crawler/site.conf").write_text(site)
    return [NGINX, "-p", where.scratch, "-c", "nginx.conf"]


def caddy(where: Where) -> list[Any]:
    """The same."""
    text = _placed(read("Caddyfile"), where.services).replace(
        "crawler.example.org {", f"localhost:{where.port} {{\ntls {where.certificate} {where.certificate}"
    )
    more = "{\nadmin off\nauto_https off\nlog {\nlevel ERROR\n}\nservers {\nprotocols h1 h2\n}\n}\n"
    (where.scratch / "Caddyfile").write_text(more + text)
    return [BIN / "caddy", "run", "--adapter", "caddyfile", "--config", where.scratch / "Caddyfile"]


def traefik(where: Where) -> list[Any]:
    """The same, with the flags that compose.yaml has."""
    text = read("traefik.yaml")
    for number, port in enumerate(where.services, start=1):
        text = text.replace(f"service-{number}:7777", f"127.0.0.1:{port}")
    certificate = {"certFile": where.certificate, "keyFile": where.certificate}
    (where.scratch / "crawler.yaml").write_text(text + "\n" + yaml.dump({"tls": {"certificates": [certificate]}}))
    own = {
        "=:80": f"=127.0.0.1:{free_port()}",
        "=:443": f"=127.0.0.1:{where.port}",
        "/etc/traefik/": f"{where.scratch}/",
        "/acme/": f"{where.scratch}/",
        "${ACME_EMAIL:-}": "",
    }
    flags = yaml.safe_load(read("compose.yaml"))["services"]["proxy"]["command"]
    for shipped, ours in own.items():
        flags = [flag.replace(shipped, ours) for flag in flags]
    return [BIN / "traefik", *flags, "--log.level=ERROR"]


PROXIES: Final[dict[str, Callable[[Where], list[Any]]]] = {"nginx": nginx, "caddy": caddy, "traefik": traefik}


@contextmanager
def proxy(name: str, scratch: Path, services: list[int], certificate: str) -> Iterator[int]:
    """A proxy before services on these ports; gives its own, on which it may not listen yet."""
    port = free_port()
    environment = {"DOMAIN": "localhost", "ACME_EMAIL": "", "HOME": str(scratch), "PATH": os.environ["PATH"]}
    process = subprocess.Popen(PROXIES[name](Where(scratch, port, services, certificate)), env=environment)
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_SECONDS)


def read(name: str) -> str:
    """A file of deploy/."""
    return (DEPLOY / name).read_text(encoding="utf-8")


def _placed(text: str, services: list[int]) -> str:
    for number, port in enumerate(services, start=1):
        text = text.replace(f"10.0.0.1{number}:7777", f"127.0.0.1:{port}")
    return text

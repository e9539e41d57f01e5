"""The servers that are probed, on loopback: nginx, two DNS sockets, slow and silent servers, certificates.

This module opens all sockets and passes them to the servers, so no other process can take a port in between. They are
bound to the loopback interface, where they serve all addresses in 127/8 and no other address of the machine.
"""

import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trustme

__all__ = ["BENCH", "CACHE", "LATENCY_MS", "World", "build", "build_helpers", "running_world"]

BENCH: Final = Path(__file__).parent
CACHE: Final = BENCH.parent / ".cache" / "bench"
NGINX: Final = "/usr/sbin/nginx"
HELPERS: Final = ("measure", "dns", "slow", "floor")
OF_NGINX: Final = ("plain", "logged", "secure", "tickets", "strange", "expired")
LATENCY_MS: Final = 200  # until the slow server answers
SECONDS_MS: Final = (1000, 2000, 3000)
NEVER: Final = -1  # how slow.c is told to be silent
RESET: Final = -2  # and to reset connections
BACKLOG: Final = 4096
DEADLINE_SECONDS: Final = 10.0  # for nginx to start and to stop

CONFIG: Final = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
{user}
pid nginx.pid;
error_log error.log error;
events {{ worker_connections 16000; multi_accept on; }}
http {{
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
    access_log off;
    log_format when $msec;
    keepalive_requests 1000000;
    lingering_close off;
    ssl_session_cache off;
    ssl_session_tickets off;
    server {{
        listen 0.0.0.0:{plain};
        location = /is-it-up {{ stub_status; }}
        location /moved/ {{ return 301 https://$host:{tickets}$uri; }}
        location / {{ return 200 "well\\n"; }}
    }}
    server {{
        listen 0.0.0.0:{logged};
        access_log fast.log when;
        location / {{ return 200 "well\\n"; }}
    }}
    server {{
        listen 0.0.0.0:{secure} ssl;
        ssl_certificate good.pem; ssl_certificate_key good.pem;
        location / {{ return 200 "well\\n"; }}
    }}
    server {{
        listen 0.0.0.0:{tickets} ssl;
        ssl_certificate good.pem; ssl_certificate_key good.pem;
        ssl_session_tickets on;
        location /missing/ {{ return 404; }}
        location / {{ return 200 "well\\n"; }}
    }}
    server {{
        listen 0.0.0.0:{strange} ssl;
        ssl_certificate strange.pem; ssl_certificate_key strange.pem;
        location / {{ return 200 "well\\n"; }}
    }}
    server {{
        listen 0.0.0.0:{expired} ssl;
        ssl_certificate expired.pem; ssl_certificate_key expired.pem;
        location / {{ return 200 "well\\n"; }}
    }}
}}
"""


@dataclass(frozen=True)
class World:
    """The running servers. The numbers are ports, open on all of 127/8."""

    directory: Path
    plain: int
    logged: int
    """Like `plain`, and logs the time of each answer."""
    secure: int
    """Has a good certificate for names under bench.internal, and gives no session tickets."""
    tickets: int
    """Like `secure`, with session tickets."""
    strange: int
    """TLS with the certificate of an unknown authority."""
    expired: int
    """TLS with a certificate that expired yesterday."""
    slow: int
    seconds: tuple[int, ...]
    """Answer after one, two and three seconds."""
    silent: int
    resets: int
    """Resets each connection when the client has sent something."""
    closed: int
    dns: int
    """Port of a DNS server on 127.0.0.1; names under absent.internal do not exist."""
    system_dns: bool
    """Whether `as_system_dns` can make our DNS server the system's for a command."""

    @property
    def cafile(self) -> Path:
        """PEM file of the authority to trust."""
        return self.directory / "ca.pem"

    def requests(self) -> int:
        """Return the number of requests nginx has had so far, including this one."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.plain}/is-it-up", timeout=DEADLINE_SECONDS) as response:
            return int(response.read().splitlines()[2].split()[2])

    def last_logged(self) -> float:
        """Return when the last request to `logged` was answered, in unix seconds; 0 without one."""
        return max((float(line) for line in (self.directory / "fast.log").read_text().split()), default=0.0)

    def clear_log(self) -> None:
        """Empty the log."""
        os.truncate(self.directory / "fast.log", 0)  # nginx goes on appending

    def as_system_dns(self, command: Sequence[str]) -> list[str]:
        """Return a command that runs `command` in a mount namespace where /etc/resolv.conf names our DNS server."""
        script = f'mount --bind {self.directory}/resolv.conf /etc/resolv.conf && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, "sh", *command]


def build() -> None:
    """Compile the helper programs and the Go prober into the cache if their sources are newer.

    Raises:
        SystemExit: There is no C compiler, or no nginx.
    """
    build_helpers()
    if shutil.which("go") and _is_older(CACHE / "bin" / "prober", BENCH / "go" / "main.go"):
        subprocess.run(["go", "build", "-o", CACHE / "bin" / "prober", "."], cwd=BENCH / "go", check=True)


def build_helpers() -> None:
    """Compile the helper programs in C into the cache if their sources are newer.

    Raises:
        SystemExit: There is no C compiler, or no nginx.
    """
    if not shutil.which("cc") or not Path(NGINX).exists():
        raise SystemExit("bench: needs a C compiler (cc) and Debian's nginx")
    (CACHE / "bin").mkdir(parents=True, exist_ok=True)
    for name in HELPERS:
        if _is_older(CACHE / "bin" / name, source := BENCH / f"{name}.c"):
            subprocess.run(["cc", "-O2", "-o", CACHE / "bin" / name, source], check=True)


@contextmanager
def running_world() -> Iterator[World]:
    """Start all servers; they end with the context, and with this process."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
        directory.chmod(0o755)  # linkchecker reads its files as another user
        listeners = {name: stack.enter_context(_listener()) for name in OF_NGINX}
        late = {delay: stack.enter_context(_listener()) for delay in (LATENCY_MS, *SECONDS_MS, NEVER, RESET)}
        closed = stack.enter_context(
            _bound(socket.SOCK_STREAM, "0.0.0.0")
        )  # bound and not listening: refuses connections
        dns = stack.enter_context(_dns_socket("127.0.0.1"))
        ports = {name: _port(listener) for name, listener in listeners.items()}
        _write_certificates(directory)
        system = _system_dns(stack, directory)
        user = "" if os.geteuid() else "user root;"  # nginx has to read files that root wrote
        (directory / "nginx.conf").write_text(CONFIG.format(user=user, **ports))

        for delay, server in late.items():
            stack.enter_context(_helper(server, ["slow", str(delay)]))
        stack.enter_context(_helper(dns, ["dns"]))
        if system is not None:
            stack.enter_context(_helper(system, ["dns"]))
        stack.enter_context(_nginx(directory, list(listeners.values())))
        world = World(
            directory=directory,
            slow=_port(late[LATENCY_MS]),
            seconds=tuple(_port(late[delay]) for delay in SECONDS_MS),
            silent=_port(late[NEVER]),
            resets=_port(late[RESET]),
            closed=_port(closed),
            dns=_port(dns),
            system_dns=system is not None,
            **ports,
        )
        try:
            world.requests()
        except OSError as error:
            raise RuntimeError(f"nginx does not serve: {(directory / 'error.log').read_text()}") from error
        yield world


def _is_older(file: Path, source: Path) -> bool:
    return not file.exists() or file.stat().st_mtime < source.stat().st_mtime


def _bound(kind: socket.SocketKind, address: str, port: int = 0) -> socket.socket:
    server = socket.socket(socket.AF_INET, kind)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        server.bind((address, port))
    except OSError:
        server.close()
        raise
    return server


def _listener() -> socket.socket:
    server = _bound(socket.SOCK_STREAM, "0.0.0.0")
    server.listen(BACKLOG)
    server.setblocking(False)
    return server


def _dns_socket(address: str, port: int = 0) -> socket.socket:
    server = _bound(socket.SOCK_DGRAM, address, port)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)  # for hundreds of queries at once
    return server


def _port(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def _write_certificates(directory: Path) -> None:
    """Write a chain of leaf and intermediate under a root (ECDSA P-256), an expired one, and one of an unknown root."""
    root, stranger = trustme.CA(), trustme.CA()
    root.cert_pem.write_to_path(str(directory / "ca.pem"))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    for name, authority, end in (("good", root, None), ("expired", root, yesterday), ("strange", stranger, None)):
        leaf = authority.create_child_ca().issue_cert("*.bench.internal", not_after=end)
        assert len(leaf.cert_chain_pems) == 2
        leaf.private_key_and_cert_chain_pem.write_to_path(str(directory / f"{name}.pem"))


def _system_dns(stack: ExitStack, directory: Path) -> socket.socket | None:
    """Open port 53 of a loopback address and write a resolv.conf that names it; None without the rights to do so."""
    for last in range(153, 253):  # benchmarks that run at the same time have the others
        address = f"127.0.0.{last}"
        (directory / "resolv.conf").write_text(f"nameserver {address}\n")
        with suppress(OSError, subprocess.CalledProcessError):
            command = ["unshare", "--mount", "mount", "--bind", f"{directory}/resolv.conf", "/etc/resolv.conf"]
            server = stack.enter_context(_dns_socket(address, 53))
            subprocess.run(command, check=True, capture_output=True)
            return server
    return None


@contextmanager
def _helper(server: socket.socket, arguments: list[str]) -> Iterator[None]:
    """Run one of the C servers with its socket as standard input; it ends with this process."""
    with subprocess.Popen([CACHE / "bin" / arguments[0], *arguments[1:]], stdin=server.fileno()) as helper:
        try:
            yield
        finally:
            helper.terminate()


@contextmanager
def _nginx(directory: Path, listeners: list[socket.socket]) -> Iterator[None]:
    """Run nginx with our sockets: it inherits those that the variable NGINX names, as in its upgrades."""
    descriptors = [listener.fileno() for listener in listeners]
    (directory / "fast.log").touch()
    nginx = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", NGINX, "-p", directory, "-c", "nginx.conf"],
        env={"NGINX": "".join(f"{descriptor};" for descriptor in descriptors)},
        pass_fds=descriptors,
        stderr=subprocess.DEVNULL,  # error.log has it too
    )
    try:
        yield
    finally:
        nginx.terminate()
        with suppress(subprocess.TimeoutExpired):
            nginx.wait(DEADLINE_SECONDS)
        nginx.kill()
        nginx.wait()

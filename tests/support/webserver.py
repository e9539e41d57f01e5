"""A real nginx that serves a folder on loopback, and the answers to expect of it, by the files in the folder."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

NGINX = Path("/usr/sbin/nginx")
DEADLINE_SECONDS = 10.0
"""More than a start or stop of nginx takes."""

CONFIG = """
daemon off;
worker_processes 1;
{user}
pid nginx.pid;
error_log stderr crit;
events {{}}
http {{
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
    log_format answers "$status $request_uri";
    access_log access.log answers;
    {limits}
    server {{
        listen {address};
        root "{root}";
        {server_limits}
        location = /is-it-up {{ access_log off; return 204; }}
    }}
}}
"""

Answer = tuple[bytes, int]
"""Path and query, percent-decoded, and the status."""


class WebServer:
    """Serves the folder `root` with nginx, which keeps its own files in `scratch`.

    Args:
        root: The folder.
        scratch: Another folder.
        limits: Directives for the context `http`.
        server_limits: Directives for the context `server`.
    """

    def __init__(self, root: Path, scratch: Path, *, limits: str = "", server_limits: str = "") -> None:
        self._limits = {"limits": limits, "server_limits": server_limits}
        self.root = root
        self.origin = ""
        self._scratch = scratch

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve at `origin` for the length of a `with`."""
        # nginx inherits the socket that NGINX names, as in its upgrades. So no other process can take the port.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = "{}:{}".format(*listener.getsockname())
            # By default, root's nginx runs its worker as a user who may not read a test's files.
            user = "" if os.geteuid() else "user root;"
            (self._scratch / "nginx.conf").write_text(
                CONFIG.format(address=address, root=self.root, user=user, **self._limits)
            )
            nginx = subprocess.Popen(
                [NGINX, "-p", self._scratch, "-c", "nginx.conf"],
                env={"NGINX": f"{listener.fileno()};"},
                pass_fds=[listener.fileno()],
                start_new_session=True,  # one process group, so master and worker can be killed together
            )
        try:
            _wait_until_up(address)
            self.origin = f"http://{address}"
            yield
        finally:
            nginx.send_signal(signal.SIGQUIT)  # unlike SIGTERM, it lets requests end and be logged
            try:
                nginx.wait(DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(nginx.pid, signal.SIGKILL)
                nginx.wait()
                raise

    def logged_answers(self) -> set[Answer]:
        """Return all answers in nginx's log, which is complete after nginx has ended."""
        lines = (self._scratch / "access.log").read_text().splitlines()
        return {(unquote_to_bytes(line[4:]), int(line[:3])) for line in lines}

    def expected_answers(self, url: str) -> list[Answer]:
        """Return what nginx must answer for a URL of this server, hop by hop."""
        parts = urlsplit(url)
        path = unquote_to_bytes(parts.path) or b"/"
        query = b"?" + unquote_to_bytes(parts.query) if parts.query else b""
        file = self.root / os.fsdecode(path.lstrip(b"/"))
        found: list[Answer] = []
        if file.is_dir() and not path.endswith(b"/"):
            found.append((path + query, 301))
            path += b"/"
        if file.is_dir():
            status = 200 if (file / "index.html").is_file() else 403
        else:
            status = 200 if file.is_file() and not path.endswith(b"/") else 404
        return [*found, (path + query, status)]


@contextlib.contextmanager
def running_nginx(folder: Path, config: str) -> Iterator[str]:
    """Run nginx with the server of `config`, whose `{address}` is that of its socket; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = "{}:{}".format(*listener.getsockname())
        text = "daemon off; worker_processes 1; pid nginx.pid; error_log stderr crit; events {}\n"
        (folder / "nginx.conf").write_text(text + config.replace("{address}", address))
        nginx = subprocess.Popen(
            [NGINX, "-p", folder, "-c", "nginx.conf"],
            env={"NGINX": f"{listener.fileno()};"},
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    try:
        yield address  # the socket listens already, so requests wait for nginx
    finally:
        os.killpg(nginx.pid, signal.SIGKILL)
        nginx.wait()


def _wait_until_up(address: str) -> None:
    """Send one request. The socket listens already, so the request waits for nginx, and fails if nginx has ended."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_SECONDS)
    try:
        connection.request("HEAD", "/is-it-up")
        assert connection.getresponse().status == 204
    finally:
        connection.close()

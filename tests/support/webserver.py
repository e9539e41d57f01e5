"""A real nginx that serves a folder on loopback, and what it must answer, read off the files themselves."""

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
DEADLINE = 10.0
"""Seconds that no start or stop of nginx takes."""

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
    server {{
        listen {address};
        root "{root}";
        location = /is-it-up {{ access_log off; return 204; }}
    }}
}}
"""

Answer = tuple[bytes, int]
"""Path and query with nothing percent-encoded, and the status for it."""


class WebServer:
    """Serves `root` with nginx, which keeps its own files in `scratch`, for the length of a `with`."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root
        self.origin = ""
        self._scratch = scratch

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve, at `origin`."""
        # nginx takes over sockets that NGINX names, as its upgrades do: no port is free at one moment, taken the next.
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = "{}:{}".format(*listener.getsockname())
            # To root's nginx, unless told otherwise, the worker is somebody who may not read a test's files.
            user = "" if os.geteuid() else "user root;"
            (self._scratch / "nginx.conf").write_text(CONFIG.format(address=address, root=self.root, user=user))
            nginx = subprocess.Popen(
                [NGINX, "-p", self._scratch, "-c", "nginx.conf"],
                env={"NGINX": f"{listener.fileno()};"},
                pass_fds=[listener.fileno()],
                start_new_session=True,  # master and worker are one group, to be killed together if need be
            )
        try:
            _expect_up(address)
            self.origin = f"http://{address}"
            yield
        finally:
            nginx.send_signal(signal.SIGQUIT)  # unlike SIGTERM it lets requests end, and be logged
            try:
                nginx.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                os.killpg(nginx.pid, signal.SIGKILL)
                nginx.wait()
                raise

    def answered(self) -> set[Answer]:
        """All that nginx answered, by its own log; complete once it has ended."""
        lines = (self._scratch / "access.log").read_text().splitlines()
        return {(unquote_to_bytes(line[4:]), int(line[:3])) for line in lines}

    def answers(self, url: str) -> list[Answer]:
        """What nginx must answer for a URL of this server, hop by hop."""
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


def _expect_up(address: str) -> None:
    """Ask once. The socket listens already: the question waits for nginx, and breaks if nginx has given up."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE)
    try:
        connection.request("HEAD", "/is-it-up")
        assert connection.getresponse().status == 204
    finally:
        connection.close()

"""Install a wheel in an empty virtual environment on each given Python, and try it as a new user would.

Usage: try_wheel.py WHEEL PYTHON...
"""

import os
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final
from urllib.request import urlopen

IMPORT: Final = "import crawler; print(crawler.__file__, crawler.create_app.__name__)"
LIBRARY: Final = """
import asyncio, sys
import crawler

async def main():
    async for result in crawler.probe(sys.argv[1:]):
        print(result.outcome, result.status)

asyncio.run(main())
"""


class Answer(BaseHTTPRequestHandler):
    """Answers each request with 200."""

    def do_HEAD(self) -> None:
        """Answer."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815 - the name is of http.server

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


class Installation:
    """The wheel in a virtual environment of its own."""

    def __init__(self, python: str, wheel: Path, folder: Path) -> None:
        self._folder = folder
        self._bin = folder / "venv" / "bin"
        subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
        self.run("python", "-m", "pip", "--disable-pip-version-check", "--quiet", "install", str(wheel))

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment outside the checkout, and return what it prints.

        Raises:
            CalledProcessError: It fails.
        """
        return subprocess.run(
            [self._bin / program, *arguments],
            cwd=self._folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        ).stdout

    def check_service(self) -> None:
        """Start the service, ask for its health, and stop it."""
        command: list[str | Path] = [self._bin / "crawler", "serve", "--port", "0", "--registry", "memory"]
        with subprocess.Popen(
            command, cwd=self._folder, env=self._environment(), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                url = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
                with urlopen(url.rstrip(".") + "/healthz", timeout=30) as response:
                    expect(str(response.status), "200")
            finally:
                process.terminate()
        expect(str(process.returncode), "0")

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CRAWLER_", "PYTHON"))}
        return {**kept, "HOME": str(self._folder)}


def expect(found: str, wanted: str) -> None:
    """Stop the program if a text is not in another one."""
    if wanted not in found:
        raise SystemExit(f"expected {wanted!r} in {found!r}")


def try_wheel(python: str, wheel: Path, url: str) -> None:
    """Install the wheel with one Python and use the import, the commands, the library and the service."""
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory() as folder:
        installation = Installation(python, wheel, Path(folder))
        expect(installation.run("python", "-c", IMPORT), "site-packages/crawler/__init__.py create_app")
        for command in ("crawler", "urlprober"):
            expect(installation.run(command, "--version"), version)
        expect(installation.run("urlprober", "probe", url), '"outcome":"ok"')
        expect(installation.run("python", "-c", LIBRARY, url), "ok 200")
        installation.check_service()
        licences = "import importlib.metadata as m; print(m.metadata('urlprober').get_all('License-File'))"
        for name in ("LICENSE", "static/LICENSE", "static/NOTICE", "swagger-ui-bundle.js.LICENSE.txt"):
            expect(installation.run("python", "-c", licences), name)
    print(f"{python}: {wheel.name} works")


def main() -> None:
    """Try the wheel that the command line names."""
    wheel, pythons = Path(sys.argv[1]).resolve(), sys.argv[2:]
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for python in pythons:
            try_wheel(python, wheel, f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()


if __name__ == "__main__":
    main()

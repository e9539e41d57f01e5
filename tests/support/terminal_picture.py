"""Draw `docs/terminal.svg`: a real run of `crawler probe` in a terminal of 80 columns.

    python -m tests.support.terminal_picture

The URLs of the run name hosts that this program serves on loopback addresses; `--resolve` and `--cafile` come from the
environment, so the command in the picture is what a user types. As root the servers listen on ports 80 and 443, and
otherwise on 8080 and 8443, which the picture then shows.
"""

import asyncio
import fcntl
import io
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from collections.abc import Iterable
from contextlib import AsyncExitStack
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.support.certs import Authority
from tests.support.documents import ROOT
from tests.support.exchange import Exchange
from tests.support.site import Site

PICTURE: Final = ROOT / "docs/terminal.svg"
COLUMNS: Final = 80
ROWS: Final = 40
ADDRESS: Final = "127.77.0.1"
EXPIRED_ADDRESS: Final = "127.77.0.2"
CLOSED_ADDRESS: Final = "127.77.0.3"

# What a terminal control sequence does is limited to what rich sends: colours, erase, and cursor up.
_CONTROL: Final = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")
_THEME: Final = TerminalTheme(
    (24, 26, 31),
    (214, 217, 224),
    [(24, 26, 31), (240, 113, 120), (140, 200, 120), (229, 192, 107), (110, 160, 240), (198, 130, 230), (86, 190, 200),
     (214, 217, 224)],
)  # fmt: skip
# rich's own template names fonts on another server; this one uses those of the reader's machine.
_SVG: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>crawler probe --file urls.txt</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Screen:
    """The lines of a terminal: characters with the SGR sequence that colours them."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._lines: list[list[tuple[str, str]]] = [[]]
        self._row = self._column = 0
        self._style = ""

    def write(self, text: str) -> None:
        """Take output of a program."""
        at = 0
        while at < len(text):
            if control := _CONTROL.match(text, at):
                self._control(control[1], control[2])
                at = control.end()
            else:
                self._put(text[at])
                at += 1

    def lines(self) -> list[str]:
        """Return the lines without blank ones at the end, as text with SGR sequences."""
        lines = [
            "".join(
                f"\x1b[0m{style}{''.join(character for character, _ in cells)}"
                for style, cells in groupby(line, itemgetter(1))
            )
            for line in self._lines
        ]
        while lines and not Text.from_ansi(lines[-1]).plain.strip():
            lines.pop()
        return lines

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._move_down()
        elif character.isprintable():
            if self._column == self._columns:
                self._column = 0
                self._move_down()
            line = self._lines[self._row]
            line += [(" ", "")] * (self._column + 1 - len(line))
            line[self._column] = character, self._style
            self._column += 1

    def _move_down(self) -> None:
        self._row += 1
        if self._row == len(self._lines):
            self._lines.append([])

    def _control(self, argument: str, name: str) -> None:
        match name:
            case "m":
                self._style = "" if argument in ("", "0") else f"{self._style}\x1b[{argument}m"
            case "A":
                self._row = max(0, self._row - int(argument or 1))
            case "K":
                line = self._lines[self._row]
                del line[0 if argument == "2" else self._column :]


async def run(command: list[str], environment: dict[str, str], folder: Path) -> str:
    """Run a command in a pseudo-terminal and return its output."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *command, stdin=terminal, stdout=terminal, stderr=terminal, cwd=folder, env=environment
    )
    os.close(terminal)
    output = io.BytesIO()
    try:
        while piece := await asyncio.to_thread(os.read, master, 65536):
            output.write(piece)
    except OSError:  # Linux ends the output of a pseudo-terminal with EIO
        pass
    finally:
        os.close(master)
        await process.wait()
    return output.getvalue().decode()


async def slow(exchange: Exchange) -> None:
    await asyncio.sleep(0.4)
    await exchange.reply(200)


async def moved(exchange: Exchange) -> None:
    await exchange.reply(301, [("Location", "/help/")])


async def probe_hosts() -> str:
    """Serve the hosts, probe them with the command, and return what the terminal received."""
    http_port, https_port = (80, 443) if os.geteuid() == 0 else (8080, 8443)
    http, https = (f":{port}" if port > 1024 else "" for port in (http_port, https_port))
    urls = [
        f"https://shop.test{https}/",
        f"https://shop.test{https}/basket",
        f"https://docs.test{https}/help",
        f"https://docs.test{https}/old-page",
        f"http://maps.test{http}/?q=museum",
        f"https://forum.test{https}/",
        f"http://nas.test{http}/",
    ]
    addresses = {"forum": EXPIRED_ADDRESS, "nas": CLOSED_ADDRESS}
    names = ("shop", "docs", "maps", "forum", "nas")
    resolve = [
        f"{name}.test:{port}:{addresses.get(name, ADDRESS)}" for name in names for port in (http_port, https_port)
    ]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = Authority(folder)
        secure = authority.good("shop.test", "docs.test")
        plain_site = await stack.enter_async_context(Site(host=ADDRESS, port=http_port))
        secure_site = await stack.enter_async_context(Site(host=ADDRESS, port=https_port, tls=secure))
        expired = authority.expired("forum.test")
        await stack.enter_async_context(Site(host=EXPIRED_ADDRESS, port=https_port, tls=expired))
        plain_site.on("/", slow)
        secure_site.on("/basket", slow)
        secure_site.on("/help", moved)
        secure_site.on("/help/", slow)
        (folder / "urls.txt").write_text("".join(f"{url}\n" for url in urls))
        environment = {
            "COLORTERM": "",
            "CRAWLER_CAFILE": str(authority.cafile),
            "CRAWLER_RESOLVE": "\n".join(resolve),
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm-256color",
        }
        arguments = ["probe", "--file", "urls.txt"]
        output = await run([sys.executable, "-m", "crawler", *arguments], environment, folder)
        return f"$ \x1b[1mcrawler {' '.join(arguments)}\x1b[0m\r\n{output}"


def draw(lines: Iterable[str]) -> str:
    """Return lines with SGR sequences as an SVG picture."""
    console = Console(record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True, color_system="standard")
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=True)
    return console.export_svg(title="", theme=_THEME, code_format=_SVG, unique_id="terminal")


if __name__ == "__main__":
    screen = Screen(COLUMNS)
    screen.write(asyncio.run(probe_hosts()))
    PICTURE.write_text(draw(screen.lines()), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")

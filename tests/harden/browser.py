"""A browser without a window, driven over the Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol/).

async with Browser(folder) as browser:
    await browser.open("http://127.0.0.1:7777/docs")
    title = await browser.appears("document.title")
"""

import asyncio
import itertools
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import ClientSession

__all__ = ["CHROMIUM", "Browser"]

CHROMIUM: Final = Path("/usr/bin/chromium")

_FLAGS: Final = [
    "--headless",
    "--no-sandbox",  # root cannot have one, and the page is ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
_LISTENS: Final = b"DevTools listening on "
_SOON: Final = """new Promise(done => {
    const look = () => { const found = %s; if (found) { observer.disconnect(); done(found); } };
    const observer = new MutationObserver(look);
    observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
    look();
})"""


class Browser:
    """One page, with its requests and its error messages.

    Attributes:
        requests: The URLs that it asked for.
        complaints: What its console shows of errors and warnings.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._folder = folder
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._session: str | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            str(CHROMIUM),
            *_FLAGS,
            f"--user-data-dir={self._folder}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            if line.startswith(_LISTENS):
                break
        self._drain = asyncio.ensure_future(self._process.stderr.read())
        self._client = ClientSession()
        self._socket = await self._client.ws_connect(line.removeprefix(_LISTENS).decode().strip(), max_msg_size=0)
        self._reading = asyncio.ensure_future(self._read())
        target = await self._do("Target.createTarget", url="about:blank")
        attached = await self._do("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self._do(f"{domain}.enable")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None
        await self._do("Browser.close")  # ends all of its processes
        await self._process.wait()
        await self._drain
        await self._socket.close()
        await self._reading
        await self._client.close()

    async def open(self, url: str) -> None:
        """Go to a page."""
        await self._do("Page.navigate", url=url)

    async def appears(self, expression: str) -> Any:
        """The value of a JavaScript expression, once it is true."""
        answer = await self._do(
            "Runtime.evaluate", expression=_SOON % expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"]["value"]

    async def _do(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        await self._socket.send_str(json.dumps(message))
        return await answer

    async def _read(self) -> None:
        async for message in self._socket:
            content = message.json()
            if "id" in content:
                answer = self._answers.pop(content["id"])
                if "error" in content:
                    answer.set_exception(RuntimeError(content["error"]["message"]))
                else:
                    answer.set_result(content["result"])
            else:
                self._note(content["method"], content["params"])

    def _note(self, event: str, what: Any) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
        elif event == "Log.entryAdded":
            self.complaints.append(what["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(what["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning"):
            self.complaints.append(str(what["args"]))

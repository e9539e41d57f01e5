"""The documentation page of the API, in a browser."""

from pathlib import Path

import pytest
from aiohttp import web

import crawler
from crawler.server.api.openapi import DOCUMENT
from tests.harden.browser import CHROMIUM, Browser
from tests.support.app_client import serving

TRY = """[document.querySelector("#operations-tasks-tasks %s")].map(found => found && (found.click(), true))[0]"""


@pytest.mark.parametrize("mount", ["", "/some/where"])
async def test_it_shows_every_request_and_sends_one(mount: str, tmp_path: Path) -> None:
    if not CHROMIUM.exists():
        pytest.fail("`make system` fetches Chromium")
    app = crawler.create_app()
    root = web.Application() if mount else app
    if mount:
        root.add_subapp(mount, app)
    async with serving(root) as client, Browser(tmp_path) as browser:
        home = str(client.make_url(mount or "/")).rstrip("/")
        await browser.open(f"{home}/docs")
        assert await browser.appears(
            f"document.querySelectorAll('.opblock').length === {len(app[DOCUMENT].operations)}"
        )
        for button in (".opblock-summary-control", ".try-out__btn", ".execute"):
            await browser.appears(TRY % button)
        answer = await browser.appears(
            "document.querySelector('#operations-tasks-tasks .live-responses-table')?.innerText"
        )
        assert '"tasks": []' in answer
        assert {url for url in browser.requests if not url.startswith("data:")} == {
            f"{home}/{path}"
            for path in (
                "docs",
                "docs/initializer.js",
                "docs/swagger-ui-bundle.js",
                "docs/swagger-ui.css",
                "openapi.json",
                "api/v1/tasks?limit=100",
            )
        }
        assert browser.complaints == []

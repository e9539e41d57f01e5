"""Runs schemathesis (https://schemathesis.readthedocs.io/) against the service and its own OpenAPI document."""

import asyncio
import os
import sys
from pathlib import Path

import crawler
from crawler import Options
from tests.support.app_client import serving
from tests.support.dns_server import DnsServer

__all__ = ["check_by_schemathesis"]

CONFIG = Path(__file__).parent / "schemathesis.toml"
HOOKS = Path(__file__).parent / "schemathesis_hooks.py"


async def check_by_schemathesis(names: DnsServer, folder: Path, *more: str) -> None:
    """Check the service with schemathesis; `more` are arguments of its command."""
    # The URLs that it makes up lead nowhere: no name has an address here.
    options = Options(dns=(names.address,), retries=0, timeout=2)
    async with serving(crawler.create_app(options)) as client:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            *("--config-file", str(CONFIG)),
            *("run", str(client.make_url("/openapi.json")), *more),
            cwd=folder,
            env=os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()

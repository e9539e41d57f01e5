"""Checks responses of the service against its OpenAPI document."""

import re
from functools import cache

from aiohttp import ClientResponse, web

from crawler.server.api.openapi import DOCUMENT

__all__ = ["check_described"]


def check_described(app: web.Application, method: str, response: ClientResponse) -> None:
    """Check that the document names the response's status and media type, if it has the path and method."""
    document = app[DOCUMENT].content
    for template, operations in document["paths"].items():
        if method.lower() in operations and _pattern(template).fullmatch(response.url.raw_path):
            operation = operations[method.lower()]
            status, what = str(response.status), operation["operationId"]
            assert status in operation["responses"], f"{what} is answered {status}, which is not described"
            described = operation["responses"][status]
            if "$ref" in described:
                described = document["components"]["responses"][status]
            if "content" in described:
                assert response.content_type in described["content"], what
            else:
                assert "Content-Type" not in response.headers, what


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template)))

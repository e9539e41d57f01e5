"""Refuses requests whose end is not certain, so that no other request can be hidden in their body (RFC 9112, 6.1)."""

from http import HTTPStatus

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler

from crawler.server.http.problem import Problem, problem_response

__all__ = ["check_framing"]


@web.middleware
async def check_framing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a transfer coding that is not `chunked` alone, or any in HTTP/1.0, and close the connection."""
    codings = request.headers.getall(hdrs.TRANSFER_ENCODING, [])
    if not codings:
        return await handler(request)
    if request.version < HttpVersion11:
        return _refuse(HTTPStatus.BAD_REQUEST, "Transfer-Encoding: does not exist in HTTP/1.0")
    if [coding.strip().lower() for coding in codings] != ["chunked"]:
        return _refuse(HTTPStatus.NOT_IMPLEMENTED, "Transfer-Encoding: only chunked is supported")
    return await handler(request)


def _refuse(status: HTTPStatus, detail: str) -> web.Response:
    response = problem_response(Problem.of(status, detail))
    response.force_close()
    return response

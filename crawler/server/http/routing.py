"""Routes by their path below the place where the application is mounted."""

from typing import Final

from aiohttp import web

__all__ = ["SUBMIT_PATH", "SUBMIT_ROUTE", "TASKS_ROUTE", "mount_path", "route_path"]

# Names of routes.
SUBMIT_ROUTE: Final = "submit"  # its path shows where the application is mounted
TASKS_ROUTE: Final = "tasks"  # of the versioned API

SUBMIT_PATH: Final = "/submit"


def mount_path(app: web.Application) -> str:
    """Return the path that aiohttp has mounted the application under; empty if it is not mounted."""
    return app.router[SUBMIT_ROUTE].canonical.removesuffix(SUBMIT_PATH)


def route_path(request: web.Request) -> str:
    """Return the template of the request's route, without the path of the mount; empty if no route matches."""
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical.removeprefix(mount_path(request.app))

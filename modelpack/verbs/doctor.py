"""The verb doctor: what is installed here, and which routes work."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from modelpack.dependencies import DISTRIBUTION, EXTRAS, install_hint, installed
from modelpack.errors import NoRouteError
from modelpack.routes import Route, find_route, formats, targets


@dataclass(frozen=True, slots=True)
class ExtraStatus:
    """One extra: its libraries with their versions, empty where they are missing."""

    name: str
    libraries: dict[str, str]
    install: str

    @property
    def complete(self) -> bool:
        """Whether every library is there."""
        return all(self.libraries.values())


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """One route between two formats, and the extras that are missing for it."""

    source: str
    target: str
    route: str
    missing: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether every library the route needs is there."""
        return bool(self.route) and not self.missing


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is installed and what works here."""

    modelpack: str
    python: str
    platform: str
    extras: tuple[ExtraStatus, ...]
    routes: tuple[RouteStatus, ...]


def doctor() -> Diagnosis:
    """Look at the installed distributions; no framework is imported."""
    extras = tuple(
        ExtraStatus(name or "base", {item: installed(item) for item in items}, install_hint(name))
        for name, items in EXTRAS.items()
    )
    absent = {item.name for item in extras if not item.complete}
    # A model behind a server stays there.
    sources = (item.name for item in formats().values() if item.name != "server")
    routes = tuple(_status(source, target, absent) for source in sources for target in targets())
    try:
        own = version(DISTRIBUTION)
    except PackageNotFoundError:
        own = "not installed as a distribution"
    return Diagnosis(own, platform.python_version(), platform.platform(terse=True), extras, routes)


def _status(source: str, target: str, absent: set[str]) -> RouteStatus:
    try:
        route = find_route(source, target)
    except NoRouteError:
        return RouteStatus(source, target, "", ())
    return RouteStatus(source, target, str(route), tuple(sorted(_needed(route) & absent)))


def _needed(route: Route) -> set[str]:
    """Extras for every step, and for running the source and each artifact on the way."""
    nodes = [route.steps[0].source, *(step.target for step in route.steps)]
    return {step.extra for step in route.steps} | {formats()[node].extra for node in nodes} - {""}

"""How near a vServer is to a place: a site, another vServer, or coordinates."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import asin, cos, inf, radians, sin, sqrt

from common.errors import Reason, Refusal
from common.model.server import Coordinates, Server, is_on_earth
from vcenter.core import indexes
from vcenter.core.view import View

_EARTH_KM = 6371.0
_NUMBER = r"[+-]?\d{1,3}(?:\.\d{1,12})?"
_PAIR = re.compile(rf"({_NUMBER}),({_NUMBER})")


@dataclass(frozen=True, slots=True)
class Place:
    """Somewhere: a vServer, in a site, at a point; as much of it as is known."""

    server_id: str = ""
    site: str = ""
    at: Coordinates | None = None

    def distance_km(self, server: Server) -> float:
        """0 in the same site, less at the vServer itself; infinite where it cannot be told."""
        if server.server_id == self.server_id:
            return -1.0
        if server.site and server.site == self.site:
            return 0.0
        if self.at is None or server.coordinates is None:
            return inf
        return distance_km(self.at, server.coordinates)


def find_place(view: View, text: str) -> Place:
    """A vServer's id, a site's name, or LATITUDE,LONGITUDE. Raises `Refusal(UNKNOWN_PLACE)`."""
    pair = _PAIR.fullmatch(text)
    if pair is not None:
        at = Coordinates(float(pair[1]), float(pair[2]))
        if is_on_earth(at):
            return Place(at=at)
    server = view.server(text)
    if server is not None:
        return Place(server.server_id, server.site, server.coordinates)
    there = [s for s in view.all(Server, indexes.SERVERS) if s.site == text]
    if not there:
        shown = f"{text[:80]!r} is no site, no vServer, and no LATITUDE,LONGITUDE"
        raise Refusal(Reason.UNKNOWN_PLACE, shown)
    known = [s.coordinates for s in there if s.coordinates is not None]
    return Place(site=text, at=known[0] if known else None)


def distance_km(a: Coordinates, b: Coordinates) -> float:
    """Along a great circle (haversine)."""
    north, east = radians(b.latitude - a.latitude), radians(b.longitude - a.longitude)
    along = cos(radians(a.latitude)) * cos(radians(b.latitude)) * sin(east / 2) ** 2
    return 2 * _EARTH_KM * asin(min(1.0, sqrt(sin(north / 2) ** 2 + along)))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes for slots: straight at a member, and through nginx as a client would come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

from ..health.http import Expectation, HttpProbe, HttpTarget
from ..health.model import Probe, ProbeResult
from ..health.probes import split_address
from .config import App, Gate, Instance, Slot

SLOT_HEADER = "X-Slipway-Slot"
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Each:
    """Several looks that must all be well, taken one after the other; the first that is not decides."""

    parts: tuple[HttpProbe, ...]

    @property
    def name(self) -> str:
        """The first part's."""
        return self.parts[0].name

    def look(self) -> ProbeResult:
        """Look with every part until one is not well."""
        result = ProbeResult(True, "nothing to look at")
        for part in self.parts:
            result = part.look()
            if not result.ok:
                return result if part is self.parts[0] else replace(result, detail=f"{part.target.path}: {result.detail}")
        return result


class Sensors:
    """Makes the probes of an application. `edge` is where nginx of this host listens with TLS."""

    def __init__(self, edge: tuple[str, int] = ("127.0.0.1", 443)) -> None:
        self.edge = edge

    def member(self, gate: Gate, address: str, release: Optional[str], limit: Optional[float] = None) -> Probe:
        """Straight at ADDRESS:PORT; `release` must be what runs there, when the gate can tell. `limit` caps the timeout."""
        host, port = split_address(address)
        target = HttpTarget(ANYWHERE.get(host, host), port, gate.path, gate.headers)
        return self._parts(target, gate, gate.expected, release, limit)

    def members(self, slot: Slot, release: Optional[str], limit: Optional[float] = None) -> Sequence[Probe]:
        """Straight at every member of `slot`."""
        return [self.member(slot.gate, address, release, limit) for address in slot.members]

    def instance(self, slot: Slot, instance: Instance, release: Optional[str]) -> Probe:
        """Straight at one instance on this host."""
        return self.member(slot.gate, f"{instance.address}:{instance.port}", release)

    def through_edge(self, app: App, slot: Slot, release: Optional[str], limit: Optional[float] = None) -> Probe:
        """Through nginx of this host on a fresh TLS connection: `slot` must be the one that answers."""
        gate = slot.gate
        headers = {**gate.headers, "Host": app.domain}
        target = HttpTarget(*self.edge, gate.path, headers, tls=True, server_name=app.domain)
        expected = replace(gate.expected, headers={**gate.expected.headers, SLOT_HEADER: f"^{slot.name}$"})
        return self._parts(target, gate, expected, release, limit)

    def _parts(
        self, target: HttpTarget, gate: Gate, expected: Expectation, release: Optional[str], limit: Optional[float]
    ) -> Probe:
        timeout = gate.timeout if limit is None else min(limit, gate.timeout)
        parts = [HttpProbe(target, expected, timeout)]
        if gate.version is not None and release is not None:
            tells = Expectation(json={gate.version.key: release})
            parts.append(HttpProbe(replace(target, path=gate.version.path), tells, timeout))
        return Each(tuple(parts))

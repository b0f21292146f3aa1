# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes for slots: straight at an instance on its own host, straight at a member from an edge, and through nginx as a client.

What an application must pass beyond its health path is looked at where it can be: on the instance's own host all of it, from
elsewhere what goes to the instance's own port, through nginx the health path alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional

from ..health import declared, probes, secrets
from ..health.http import ERRORS, Expectation, HttpProbe, HttpTarget, fetch
from ..health.model import Probe, ProbeResult, failure
from ..health.probes import BadTarget, ConnectProbe, ProbeOptions, split_address
from ..health.websocket import WebSocketProbe
from ..health.wire import Place
from ..host import files
from ..host.runner import Runner
from .config import App, Instance, Slot
from .gate import Further, Gate

ANY = Expectation(status=tuple(range(200, 600)))
SLOT_HEADER = "X-Slipway-Slot"
EDGE_PATH, EDGE_TIMEOUT = "/.slipway/edge", 2.0
"""What nginx answers by itself, and seconds for that."""
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Chosen:
    """The slot that nginx chose for a request: None when it did not answer (`detail`), empty when it does not tell."""

    slot: Optional[str]
    detail: str = ""


@dataclass(frozen=True)
class Each:
    """Several looks that must all be well, taken one after the other; the first that is not decides.

    When all are, the first is the answer: its latency is the application's.
    """

    parts: tuple[Probe, ...]

    @property
    def name(self) -> str:
        """The first part's."""
        return self.parts[0].name

    def look(self) -> ProbeResult:
        """Look with every part until one is not well."""
        first = self.parts[0].look()
        if not first.ok:
            return first
        for part in self.parts[1:]:
            result = part.look()
            if not result.ok:
                label = part.target.path if isinstance(part, HttpProbe) else part.name
                return replace(result, detail=f"{label}: {result.detail}")
        return first


@dataclass(frozen=True)
class FromEnvironment:
    """A service whose address, user and password stand in a variable of the application's environment.

    The file is read at every look, and nothing of the variable but the address is ever shown.
    """

    kind: str
    variable: str
    env_file: Optional[str]
    options: ProbeOptions = field(repr=False)

    @property
    def name(self) -> str:
        """Kind and variable."""
        return f"{self.kind} of {self.variable}"

    def look(self) -> ProbeResult:
        """Ask the service once."""
        text = files.read_text(Path(self.env_file)) if self.env_file else None
        address = secrets.variable(text or "", self.variable)
        if address is None:
            return ProbeResult(False, f"{self.env_file or 'the environment'} has no {self.variable}")
        try:
            probe = probes.make(self.kind, address, self.options)
        except BadTarget as error:
            return ProbeResult(False, str(error))
        result = probe.look()
        return replace(result, detail=f"{probe.name}: {secrets.mask(result.detail, secrets.password(address))}")


@dataclass(frozen=True)
class Unknown:
    """A kind of proof that this version of the command has not learned."""

    kind: str

    @property
    def name(self) -> str:
        """The kind."""
        return self.kind

    def look(self) -> ProbeResult:
        """Never well: what cannot be looked at is not proven."""
        return ProbeResult(False, "this version of slipway cannot look at that. Run site.yml: it installs the newer one")


class Sensors:
    """Makes the probes of an application. `edge` is where nginx of this host listens with TLS."""

    def __init__(self, edge: tuple[str, int] = ("127.0.0.1", 443), runner: Optional[Runner] = None) -> None:
        self.edge = edge
        self.runner = runner or Runner()

    def member(self, gate: Gate, address: str, release: Optional[str], limit: Optional[float] = None) -> Probe:
        """Straight at ADDRESS:PORT; `release` must be what runs there, when the gate can tell. `limit` caps the timeout."""
        target = _target(gate, address)
        own = [one for one in gate.also if one.kind in declared.OWN_PORT]
        return self._parts(target, gate, gate.expected, release, limit, own)

    def members(self, slot: Slot, release: Optional[str], limit: Optional[float] = None) -> Sequence[Probe]:
        """Straight at every member of `slot`."""
        return [self.member(slot.gate, address, release, limit) for address in slot.members]

    def instance(self, slot: Slot, instance: Instance, release: Optional[str]) -> Probe:
        """Straight at one instance on this host, with all that only this host can see."""
        target = _target(slot.gate, f"{instance.address}:{instance.port}")
        known = {
            "PORT": str(instance.port),
            "SLIPWAY_ADDRESS": target.address,
            "SLIPWAY_SLOT": slot.name,
            "SLIPWAY_INSTANCE": instance.name,
            "SLIPWAY_RELEASE": release or "",
        }
        return self._parts(target, slot.gate, slot.gate.expected, release, None, slot.gate.also, known)

    def warmup(self, slot: Slot, instances: Sequence[Instance]) -> Sequence[Probe]:
        """The requests that every instance gets before its gate counts."""
        targets = [_target(slot.gate, f"{instance.address}:{instance.port}") for instance in instances]
        probed = [HttpProbe(target, timeout=slot.gate.timeout) for target in targets]
        return [declared.warm(probe, path) for probe in probed for path in slot.gate.warmup]

    def reading(self, slot: Slot, paths: Sequence[str]) -> Sequence[HttpProbe]:
        """Straight at every member of `slot`, one request for each of `paths`; whatever it answers is well."""
        targets = [replace(_target(slot.gate, member), path=path) for path in paths for member in slot.members]
        return [HttpProbe(target, ANY, slot.gate.timeout) for target in targets]

    def through_edge(self, app: App, slot: Slot, release: Optional[str], limit: Optional[float] = None) -> Probe:
        """Through nginx of this host on a fresh TLS connection: `slot` must be the one that answers."""
        gate = slot.gate
        headers = {**gate.headers, "Host": app.domain}
        target = HttpTarget(*self.edge, gate.path, headers, gate.method, tls=True, server_name=app.domain)
        expected = replace(gate.expected, headers={**gate.expected.headers, SLOT_HEADER: f"^{slot.name}$"})
        return self._parts(target, gate, expected, release, limit, ())

    def chosen(self, app: App) -> Chosen:
        """Which slot nginx of this host would send a request of the application to; no instance is asked."""
        target = HttpTarget(*self.edge, EDGE_PATH, {"Host": app.domain}, tls=True, server_name=app.domain)
        begun = time.monotonic()
        try:
            return Chosen(fetch(target, EDGE_TIMEOUT).headers.get(SLOT_HEADER.lower(), ""))
        except ERRORS as error:
            return Chosen(None, failure(error, begun, EDGE_TIMEOUT).detail)

    def _parts(
        self,
        target: HttpTarget,
        gate: Gate,
        expected: Expectation,
        release: Optional[str],
        limit: Optional[float],
        also: Sequence[Further],
        environment: Optional[Mapping[str, str]] = None,
    ) -> Probe:
        timeout = gate.timeout if limit is None else min(limit, gate.timeout)
        parts: list[Probe] = [HttpProbe(target, expected, timeout)]
        if gate.version is not None and release is not None:
            tells = Expectation(json={gate.version.key: release})
            parts.append(HttpProbe(replace(target, path=gate.version.path, method="GET"), tells, timeout))
        for one in also:
            most = timeout if one.timeout is None else one.timeout if limit is None else min(limit, one.timeout)
            parts.append(self._further(one, target, gate, most, environment or {}))
        return Each(tuple(parts))

    def _further(self, one: Further, target: HttpTarget, gate: Gate, timeout: float, environment: Mapping[str, str]) -> Probe:
        if one.kind == "http":
            return HttpProbe(replace(target, path=one.target, method=one.method), one.expected, timeout)
        if one.kind == "websocket":
            return WebSocketProbe(replace(target, path=one.target, method="GET"), timeout)
        if one.kind == "tcp":
            return ConnectProbe(Place(target.address, int(one.target)), timeout)
        if one.kind == "exec":
            from ..health.command import ExecProbe  # with all that runs processes, which a rollback does not need

            return ExecProbe(one.command, one.exit_status, one.output, timeout, environment)
        options = ProbeOptions(timeout=timeout, ca=one.ca, runner=self.runner)
        if one.kind in ("redis", "postgresql"):
            return FromEnvironment(one.kind, one.target, gate.env_file, options)
        if one.kind in declared.ALSO:
            return probes.make(one.kind, one.target, options)
        return Unknown(one.kind)


def _target(gate: Gate, address: str) -> HttpTarget:
    host, port = split_address(address)
    return HttpTarget(ANYWHERE.get(host, host), port, gate.path, gate.headers, gate.method)

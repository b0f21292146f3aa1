# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots as containers, through the engine's command line."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

from ..health import secrets
from ..health.process import ContainerProcess
from ..host.runner import Result
from .config import App, Instance, Runtime, Slot
from .drivers import Artifact, Once
from .errors import SlipwayError
from .host import Host

DIGEST = re.compile(r"(?P<host>[^/@\s]+)/(?P<name>[^@\s]+)@(?P<digest>sha256:[0-9a-f]{64})")
PULL_TIMEOUT = 900.0
LABEL = "io.github.slipway-server"

REMEDIES = (
    (
        re.compile(r"manifest unknown|not found|name unknown", re.IGNORECASE),
        "it does not know this digest. Push the image, or correct `image` of the release",
    ),
    (
        re.compile(r"unauthorized|denied|no basic auth|authentication required", re.IGNORECASE),
        "it refuses the login. Check username and password in slipway_registries",
    ),
    (
        re.compile(r"x509|certificate|http response to https", re.IGNORECASE),
        "its certificate is not accepted. Check `ca` in slipway_registries",
    ),
    (
        re.compile(r"refused|no such host|timeout|timed out|unreachable|no route|deadline exceeded|EOF", re.IGNORECASE),
        "it cannot be reached. Check name, port and firewall between the two",
    ),
    (re.compile(r"no space left", re.IGNORECASE), "the disk here is full. Remove images: docker image prune --all"),
)


@dataclass(frozen=True)
class ContainerPlace:
    """One container of a slot."""

    host: Host
    app: App
    runtime: Runtime
    slot: str
    instance: Instance

    def fingerprint(self, artifact: Artifact, /) -> str:
        """Over the command that starts it and the environment file."""
        parts = [*self._argv(artifact, ""), environment_of(self.host, self.runtime)]
        return hashlib.sha256("\0".join(parts).encode("utf-8", errors="surrogateescape")).hexdigest()

    def process(self) -> ContainerProcess:
        """The container."""
        return ContainerProcess(self.host.runner, self.instance.name)

    def _box(self) -> list[str]:
        """What every container of the application may and knows."""
        runtime = self.runtime
        return [
            *(["--read-only"] if runtime.read_only else []),
            "--tmpfs=/tmp",
            *(f"--tmpfs={path}" for path in runtime.tmpfs),
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            f"--pids-limit={runtime.pids}",
            *([f"--user={runtime.user}"] if runtime.user else []),
            *([f"--memory={runtime.memory}"] if runtime.memory else []),
            *([f"--env-file={self.host.layout.path(runtime.env_file)}"] if runtime.env_file else []),
        ]

    def _names(self, artifact: Artifact) -> dict[str, str]:
        return {"SLIPWAY_APP": self.app.name, "SLIPWAY_SLOT": self.slot, "SLIPWAY_RELEASE": artifact.release}

    def once(
        self, artifact: Artifact, name: str, command: Sequence[str], env_file: Optional[str], env: Mapping[str, str]
    ) -> Once:
        """`command` in a container of its own, `name`, of the very image; `env_file` and `env` come after what all get."""
        argv = [
            "docker",
            "run",
            "--rm",
            f"--name={name}",
            "--pull=never",
            *self._box(),
            *([f"--env-file={self.host.layout.path(env_file)}"] if env_file else []),
            *(f"--env={key}={value}" for key, value in {**self._names(artifact), **env}.items()),
            str(artifact.image),
            *command,
        ]
        # Whatever ends the client, its container must not live on. The leading sign: it is mostly gone already.
        return Once(argv, [f"ExecStopPost=-/usr/bin/docker rm --force {name}"])

    def labels(self) -> dict[str, str]:
        """What tells it from other containers."""
        return {"app": self.app.name, "slot": self.slot}

    def environment(self) -> dict[str, str]:
        """What it gets beside the environment of all."""
        return {"PORT": str(self.runtime.container_port), "BIND": "0.0.0.0"}

    def options(self) -> list[str]:
        """Further options of `docker run`."""
        address = f"[{self.instance.address}]" if ":" in self.instance.address else self.instance.address
        return [f"--publish={address}:{self.instance.port}:{self.runtime.container_port}"]

    def _argv(self, artifact: Artifact, fingerprint: str) -> list[str]:
        labels = {**self.labels(), "release": artifact.release, "fingerprint": fingerprint}
        environment = {**self.environment(), **self._names(artifact)}
        return [
            "docker",
            "run",
            "--detach",
            f"--name={self.instance.name}",
            "--pull=never",
            *(f"--label={LABEL}.{key}={value}" for key, value in labels.items()),
            *self._box(),
            *(f"--env={key}={value}" for key, value in environment.items()),
            *self.options(),
            f"--stop-timeout={self.runtime.stop_timeout}",
            "--restart=no",
            str(artifact.image),
            *(shlex.split(self.runtime.command) if self.runtime.command else []),
        ]

    def start(self, artifact: Artifact, /) -> None:
        """A fresh container; it does not restart by itself while it is on probation."""
        self.stop()
        name, place = self.instance.name, f"{self.instance.address}:{self.instance.port}"
        started = self.host.runner.run(self._argv(artifact, self.fingerprint(artifact)), timeout=120)
        if not started.ok:
            self.host.runner.run(["docker", "rm", "--force", name], timeout=60)
            text = secrets.mask(started.text(), secrets.values(environment_of(self.host, self.runtime)))
            hint = ""
            if "already allocated" in text or "address already in use" in text:
                hint = f" Something else listens on {place}: ss -ltnp 'sport = :{self.instance.port}'."
            raise SlipwayError(f"{self.app.host} could not start the container {name}: {text}.{hint}")

    def keep(self) -> None:
        """Restart it from now on, unless somebody stops it."""
        self.host.runner.must(["docker", "update", "--restart=unless-stopped", self.instance.name], timeout=30)

    def stop(self) -> None:
        """Graceful within the stop timeout, then removed."""
        name, patience = self.instance.name, self.runtime.stop_timeout
        if not self.host.runner.run(["docker", "inspect", "--type=container", name], timeout=30).ok:
            return
        self.host.runner.run(["docker", "update", "--restart=no", name], timeout=30)
        self.host.runner.run(["docker", "stop", f"--time={patience}", name], timeout=patience + 30)
        self.host.runner.must(["docker", "rm", "--force", name], timeout=60)

    @property
    def port(self) -> int:
        """In the container's own network."""
        return self.runtime.container_port

    def pid(self) -> Optional[int]:
        """Its main process, as this host counts."""
        shown = self.host.runner.run(["docker", "inspect", "--type=container", self.instance.name], timeout=30)
        return int(json.loads(shown.out)[0]["State"].get("Pid") or 0) or None if shown.ok else None


class DockerDriver:
    """Containers of one slot."""

    def __init__(self, host: Host, app: App, runtime: Runtime, slot: Slot) -> None:
        self.host = host
        self.app = app
        self.runtime = runtime
        self.places: Sequence[ContainerPlace] = [
            ContainerPlace(host, app, runtime, slot.name, instance) for instance in slot.instances
        ]

    def check(self, artifact: Artifact, /) -> None:
        """An image by digest is wanted: a tag may mean something else tomorrow."""
        if not artifact.image:
            raise SlipwayError(
                f"release {artifact.release} of {self.app.name} names no image, but {self.app.host} runs containers. "
                "Add `image` to the release."
            )
        if not DIGEST.fullmatch(artifact.image):
            raise SlipwayError(
                f"release {artifact.release} of {self.app.name}: image {artifact.image!r} is not REGISTRY/NAME@sha256:DIGEST. "
                "A tag may mean something else tomorrow; the digest is what `docker push` printed."
            )

    def prepare(self, artifact: Artifact, /) -> str:
        """Pull the image unless the engine has it."""
        image = str(artifact.image)
        if self.host.runner.run(["docker", "image", "inspect", "--format={{.Id}}", image], timeout=30).ok:
            return image
        pulled = self.host.runner.run(["docker", "pull", "--quiet", image], timeout=PULL_TIMEOUT)
        if not pulled.ok:
            raise SlipwayError(self._pull_failure(image, pulled))
        return image

    def _pull_failure(self, image: str, pulled: Result) -> str:
        found = DIGEST.fullmatch(image)
        registry = found.group("host") if found else "the registry"
        text = pulled.text()
        why = next((remedy for pattern, remedy in REMEDIES if pattern.search(text)), "the engine could not pull it")
        if "Cannot connect to the Docker daemon" in text:
            why = "the Docker engine here does not run: systemctl status docker"
        return f"{self.app.host} could not pull {image} from {registry}: {why}. The engine said: {text}"

    def secrets(self) -> set[str]:
        """Values of the environment file."""
        return secrets.values(environment_of(self.host, self.runtime))


def environment_of(host: Host, runtime: Runtime) -> str:
    """Text of the environment file that all instances share; empty when there is none."""
    return (host.disk.read(host.layout.path(runtime.env_file)) if runtime.env_file else None) or ""

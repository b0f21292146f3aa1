# SPDX-License-Identifier: GPL-3.0-or-later
"""Where cutovers are measured: two hosts made by the roles, with two releases of a light application on both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.app import image
from tests.bench.measure import Cost, timed
from tests.bench.system import CACHE, FIRST
from tests.fleet import hosts
from tests.fleet.shell import ROOT, run, step
from tests.fleet.spec import Spec, parse

APP, DOMAIN, FLEET = "shop", "shop.example", "bench-cutover"
RELEASES = ("v1", "v2")
SOURCE = Path(__file__).with_name("release") / "app.py"
LOGS = CACHE / "cutover"
SKIPPED = "base,kernel,unattended_upgrades,ufw,sshd"
"""Roles without a part in a cutover; the firewall would also close the ports of the other ways."""


def fleet(host_image: str) -> Spec:
    """Two fresh hosts, each an edge and an app host."""
    hosts.down(FLEET)
    return hosts.up(_spec(host_image))


def _spec(host_image: str) -> Spec:
    entries = {f"server{number}": {"image": host_image, "groups": ["edge", "app"]} for number in (1, 2)}
    return parse({"name": FLEET, "hosts": entries})


def entry() -> dict[str, Any]:
    """The application in slipway_apps, with archives of its releases made here. Gate and bake are as short as they can be."""
    releases = {}
    for name in RELEASES:
        archive = image.compress(image.tar({"app.py": SOURCE.read_bytes(), "RELEASE": f"{name}\n".encode()}))
        path = LOGS / f"{APP}-{name}.tar.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive)
        releases[name] = {"archive": str(path), "sha256": image.digest(archive).removeprefix("sha256:")}
    return {
        "domain": DOMAIN,
        "release": RELEASES[0],
        "releases": releases,
        "backends": {"web": {"runtime": "systemd", "port": 3000, "command": "/usr/bin/python3 app.py", "packages": []}},
        "health": {"path": "/health", "version": {"path": "/version", "key": "release"}, "successes": 1,
                   "min_healthy": 0, "deadline": 30},
        "cutover": {"bake": 0, "standby": 3600, "confirm_deadline": 60},
        "websockets": ["/ws"],
    }  # fmt: skip


def inventory(spec: Spec) -> Path:
    """An inventory of the fleet with the application."""
    described: dict[str, Any] = hosts.inventory(spec)
    described["all"]["vars"]["slipway_apps"] = {APP: entry()}
    path = CACHE / f"{FLEET}.yml"
    path.write_text(yaml.safe_dump(described, sort_keys=False))
    return path


def play(name: str, inventory: Path, *arguments: str) -> Cost:
    """Run a playbook as a user does; its output goes to the logs. Raises CommandFailed."""
    log = LOGS / f"{name}.log"
    environment = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks"}
    with step(name):
        return timed(["ansible-playbook", *arguments, "-i", str(inventory)], log, ROOT, environment)


def make(host_image: str) -> tuple[Spec, Path]:
    """The hosts with both releases deployed, the second one serving."""
    spec = fleet(host_image)
    path = inventory(spec)
    play("site", path, "site.yml", "--skip-tags", SKIPPED)
    play("deploy", path, "deploy.yml", "-e", f"app={APP}", "-e", f"release={RELEASES[1]}")
    return spec, path


def stand(host_image: str) -> tuple[Spec, Path]:
    """The hosts as an earlier run left them, brought to this tree's command; the second release serves on both."""
    spec = hosts.up(_spec(host_image))
    path = inventory(spec)
    play("site", path, "site.yml", "--tags", "app")
    play("deploy", path, "deploy.yml", "-e", f"app={APP}", "-e", f"release={RELEASES[1]}")
    return spec, path


def active() -> dict[str, str]:
    """The slot that has the traffic, by host."""
    return {host: json.loads(on(host, "slipway", "status", APP, "--json"))["active"] for host in (FIRST, "server2")}


def on(host: str, *argv: str, data: str | None = None, timeout: float = 120) -> str:
    """Output of a command on a host. Raises FleetError."""
    flags = ["--interactive"] if data is not None else []
    return run(["docker", "exec", *flags, hosts.container_name(FLEET, host), *argv], input=data, timeout=timeout)


def description(host: str = FIRST) -> dict[str, Any]:
    """The application as the roles described it on a host."""
    found: dict[str, Any] = json.loads(on(host, "cat", f"/etc/slipway/apps/{APP}.json"))
    return found


PORTS = {"flag": 443, "reload": 9443, "restart": 9444, "haproxy": 8443}
"""Where each way is served on the first host, all with TLS and the same certificate."""
OWN_PORTS = {"blue": 4001, "green": 4002}
"""Where the processes of stop-then-start listen."""
BOOT = 2
"""Seconds until such a process listens."""

UNIT = f"""[Unit]
Description=The application of stop-then-start in slot %i
[Service]
Environment=SLIPWAY_SLOT=%i BOOT={BOOT}
EnvironmentFile=/etc/bench/%i.env
ExecStart=/usr/bin/python3 /etc/bench/app.py
DynamicUser=yes
"""

SERVER = """
upstream bench_{name} {{ include /etc/nginx/bench/{name}.conf; keepalive 32; }}
server {{
    listen {port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    location / {{ proxy_pass http://bench_{name}; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    location /ws {{
        proxy_pass http://bench_{name};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection upgrade;
    }}
}}
"""

HAPROXY = """global
    stats socket /run/haproxy/admin.sock mode 600 level admin
    maxconn 2000
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend bench
    bind :{port} ssl crt /etc/haproxy/bench.pem
    default_backend bench
backend bench
    balance roundrobin
{servers}
"""


def others(first: str) -> None:
    """Serve the same slots in the other ways, too; `first` is the slot that they begin with."""
    told = description()
    certificate, key = f"/etc/slipway/tls/{APP}/fullchain.pem", f"/etc/slipway/tls/{APP}/privkey.pem"
    members = {name: slot["members"] for name, slot in told["slots"].items()}
    files = {
        "/etc/bench/app.py": SOURCE.read_text(),
        "/etc/systemd/system/bench@.service": UNIT,
        "/etc/nginx/sites-enabled/bench": "".join(
            SERVER.format(name=name, port=PORTS[name], certificate=certificate, key=key) for name in ("reload", "restart")
        ),
    }
    lines = []
    for (slot, port), release in zip(OWN_PORTS.items(), RELEASES, strict=True):
        files[f"/etc/bench/{slot}.env"] = f"PORT={port}\nSLIPWAY_RELEASE={release}\n"
        files[f"/etc/nginx/bench/reload.{slot}"] = "".join(f"server {member};\n" for member in members[slot])
        files[f"/etc/nginx/bench/restart.{slot}"] = f"server 127.0.0.1:{port};\n"
        state = "" if slot == first else " disabled"
        lines += [f"    server {slot}{number} {member}{state}" for number, member in enumerate(members[slot], start=1)]
    for name in ("reload", "restart"):
        files[f"/etc/nginx/bench/{name}.conf"] = files[f"/etc/nginx/bench/{name}.{first}"]
    files["/etc/haproxy/haproxy.cfg"] = HAPROXY.format(port=PORTS["haproxy"], servers="\n".join(lines))
    files["/root/agent.py"] = (Path(__file__).with_name("agent.py")).read_text()
    install = "export DEBIAN_FRONTEND=noninteractive; apt-get -q -y install --no-install-recommends haproxy"
    on(FIRST, "sh", "-c", install, timeout=300)
    for path, text in files.items():
        on(FIRST, "sh", "-c", f"mkdir -p {Path(path).parent} && cat >{path}", data=text)
    on("server2", "sh", "-c", "cat >/root/agent.py", data=files["/root/agent.py"])
    begin = [
        f"cat {certificate} {key} >/etc/haproxy/bench.pem",
        "systemctl daemon-reload",
        f"systemctl start bench@{first}",
        "systemctl restart haproxy",
        "nginx -t -q",
        "nginx -s reload",
    ]
    on(FIRST, "sh", "-c", " && ".join(begin))

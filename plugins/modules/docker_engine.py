#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: the Docker engine of a host as one transaction."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_engine
short_description: Configure the Docker engine, its registries and their logins as one transaction
version_added: 0.1.0
description:
  - Writes C(/etc/docker/daemon.json), lets dockerd validate it where it can (version 23 and newer), and reloads the daemon
    where SIGHUP is enough or restarts it. Containers survive the restart. A daemon that does not come back gets its old file.
  - Writes the certificate authorities of registries and merges their logins into C(/root/.docker/config.json).
author: slipway.server contributors
options:
  version:
    description: Version of the installed engine, or of the one that will be.
    type: str
    required: true
  nofile:
    description: Open files a container may have by default; cut to what the host can give.
    type: int
    default: 65536
  bip:
    description: Address and prefix of the default bridge (C(172.30.0.1/24)); the engine's own choice when empty.
    type: str
    default: ""
  address_pool:
    description: Network from which further bridges get theirs; the engine's own choice when empty.
    type: str
    default: ""
  address_pool_size: {description: Prefix length of each bridge in the pool., type: int, default: 24}
  live_restore: {description: Whether containers survive a stop of the daemon., type: bool, default: true}
  userland_proxy: {description: Whether a process of its own forwards each published port., type: bool, default: false}
  icc: {description: Whether containers on the default bridge reach each other., type: bool, default: false}
  no_new_privileges: {description: Whether setuid programs in containers are powerless., type: bool, default: true}
  log_driver: {description: Default log driver., type: str, default: local}
  log_options: {description: Options of the log driver., type: dict, default: {max-size: 10m, max-file: "5"}}
  options: {description: "More keys of daemon.json; they win over the others.", type: dict, default: {}}
  registries:
    description: Registries with an authority or a login of their own.
    type: list
    elements: dict
    default: []
    suboptions:
      host: {description: "C(host) or C(host:port), as in image names.", type: str, required: true}
      username: {description: Name to log in with., type: str}
      password: {description: Password to log in with., type: str}
      ca: {description: "Certificate authority in PEM form, or a key of O(authorities).", type: str}
  authorities: {description: PEM texts by a name of the caller's choice., type: dict, default: {}}
  state:
    description:
      - C(configured) brings the engine to the declaration.
      - C(verified) compares with the running daemon, fails with every difference (in check mode it warns) and starts nothing.
      - C(absent) puts the files back as they were before the first run, with a restart only while no container runs.
    type: str
    choices: [configured, verified, absent]
    default: configured
attributes:
  check_mode:
    description: Says what would change, on a host without Docker too.
    support: full
  diff_mode:
    description: Shows each file; logins stay hidden.
    support: full
"""

EXAMPLES = r"""
- name: Configure the engine
  slipway.server.docker_engine:
    version: 26.1.5
    bip: 172.30.0.1/24
    address_pool: 172.30.128.0/17
    registries:
      - {host: "registry.example:5000", username: deploy, password: "{{ vault_registry }}"}
"""

RETURN = r"""
nofile:
  description: Limit of open files that containers get.
  type: int
  returned: success
files_changed:
  description: Paths that were, or in check mode would be, changed.
  type: list
  elements: str
  returned: success
actions:
  description: What was done to the daemon, in order.
  type: list
  elements: str
  returned: success
"""

from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.quiet import QuietModule
from ansible_collections.slipway.server.plugins.module_utils.settings import converge, docker, docker_closed, proof, taken
from ansible_collections.slipway.server.plugins.module_utils.settings.readback import Seen

REGISTRY = {
    "host": {"type": "str", "required": True},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "ca": {"type": "str"},
}
SPEC: dict[str, Any] = {
    "version": {"type": "str", "required": True},
    "nofile": {"type": "int", "default": 65536},
    "bip": {"type": "str", "default": ""},
    "address_pool": {"type": "str", "default": ""},
    "address_pool_size": {"type": "int", "default": 24},
    "live_restore": {"type": "bool", "default": True},
    "userland_proxy": {"type": "bool", "default": False},
    "icc": {"type": "bool", "default": False},
    "no_new_privileges": {"type": "bool", "default": True},
    "log_driver": {"type": "str", "default": "local"},
    "log_options": {"type": "dict", "default": {"max-size": "10m", "max-file": "5"}},
    "options": {"type": "dict", "default": {}},
    "registries": {"type": "list", "elements": "dict", "default": [], "options": REGISTRY},
    "authorities": {"type": "dict", "default": {}},
    "state": {"type": "str", "choices": ["configured", "verified", "absent"], "default": "configured"},
}


def declared(params: dict[str, Any]) -> docker.Engine:
    """The parameters as the library takes them."""
    same = set(SPEC) - {"version", "registries", "authorities", "state"}
    return docker.Engine(
        registries=tuple(
            docker.Registry(
                entry["host"],
                entry["username"] or "",
                entry["password"] or "",
                params["authorities"].get(entry["ca"], entry["ca"]) or "",
            )
            for entry in params["registries"]
        ),
        **{key: params[key] for key in same},
    )


def look(runner: Runner, engine: docker.Engine, nofile: int) -> Seen:
    """Every difference between the declaration and the running daemon."""
    pid = runner.run(["systemctl", "show", "--property=MainPID", "--value", "--", docker.UNIT]).out.strip()
    found = docker.mismatches(engine, nofile, runner)
    found += docker_closed.mismatches(engine.options, pid, runner) if pid not in ("", "0") else []
    return Seen(tuple(str(mismatch) for mismatch in found))


def answer(done: converge.Outcome) -> dict[str, Any]:
    """What the module says was done."""
    paths = [str(change.path) for change in done.changes]
    return {"changed": done.changed, "diff": done.diff(), "files_changed": paths, "actions": done.actions}


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = QuietModule(argument_spec=SPEC, supports_check_mode=True)
    runner = Runner()
    engine = declared(module.params)
    problems = docker.problems(engine)
    try:
        if module.params["state"] == "absent":
            gone = docker.let_go(runner, engine, module.check_mode)
            taken.tell(module.warn, "docker", gone)
            module.exit_json(**answer(gone), nofile=engine.nofile)
        possible, old = docker.hard_limit(), docker.parse_json(docker.disk.read_text(docker.DAEMON), docker.DAEMON)
        there = docker_closed.containers(runner) if engine.options.get("userns-remap") else []
        problems += docker_closed.refusals(engine.options, old, possible, there)
        if problems:
            module.fail_json(msg="The declaration of the engine is refused, nothing was changed:\n" + "\n".join(problems))
        nofile = min(engine.nofile, possible)
        if module.params["state"] == "verified":
            nothing = {"changed": False, "nofile": nofile, "files_changed": [], "actions": []}
            proof.end(module, "docker", look(runner, engine, nofile), nothing)
        running = runner.run(["systemctl", "is-active", "--quiet", docker.UNIT]).ok
        wanted = docker.transaction(engine, module.params["version"], nofile, running)
        done = converge.Converger(runner).run(wanted, module.check_mode)
    except (docker.DockerError, converge.ConvergeError, OSError) as error:
        module.fail_json(msg=str(error))
    gone = docker_closed.leaving(old, docker.daemon(engine, nofile))
    if gone:
        module.warn(f"docker: {docker.DAEMON} is this role's alone; {', '.join(gone)} go. Keep them by docker_options")
    if nofile < engine.nofile:
        module.warn(f"docker: containers get {nofile} open files instead of {engine.nofile}: this host cannot give more")
    taken.tell(module.warn, "docker", done)
    proof.end(module, "docker", look(runner, engine, nofile), {**answer(done), "nofile": nofile})


if __name__ == "__main__":
    main()

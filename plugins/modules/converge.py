#!/usr/bin/python
# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible module: files and units of one service as one transaction."""

from __future__ import annotations

DOCUMENTATION = r"""
module: converge
short_description: Bring the files and units of a service to a declared state as one transaction
version_added: 0.1.0
description:
  - Compares everything with the live state first. Nothing differs means nothing is touched.
  - Otherwise files are validated in a staging place, swapped atomically, validated in place, and the units are reloaded or
    restarted once. When validation, the unit or a check afterwards fails, the old bytes come back and the task fails.
  - A run that is killed between swap and reload is finished by the next run.
author: slipway.server contributors
options:
  name:
    description: Name of the transaction. One service has one name.
    type: str
    required: true
  state:
    description:
      - With C(absent) everything is as it was before the first run with O(originals), byte for byte. Units that run are told of
        it and go on; of the other options only O(units), O(validate), O(check) and O(guarded) count.
    type: str
    choices: [present, absent]
    default: present
  originals:
    description: Whether what stands at the paths is kept before it is changed, so that O(state) V(absent) can put it back.
    type: bool
    default: false
  directories:
    description: Directories with owner and mode.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path., type: path, required: true}
      owner: {description: User name., type: str, default: root}
      group: {description: Group name., type: str, default: root}
      mode: {description: Octal permission bits as text., type: str, default: "0755"}
      state: {description: C(absent) removes it when it is empty., type: str, choices: [present, absent], default: present}
  files:
    description: Files that are shown in the diff.
    type: list
    elements: dict
    default: []
    suboptions: &file
      path: {description: Absolute path., type: path, required: true}
      content: {description: The whole text of the file., type: str}
      owner: {description: User name., type: str, default: root}
      group: {description: Group name., type: str, default: root}
      mode: {description: Octal permission bits as text., type: str, default: "0644"}
      validate: {description: Command that must accept the staged file; C(%s) is its path., type: str, default: ""}
      effect:
        description: What a change of this file asks of the units.
        type: str
        choices: [none, daemon-reload, reload, restart]
        default: reload
      state: {description: Whether the file is there., type: str, choices: [present, absent], default: present}
  secret_files:
    description: Like O(files), but the content is shown nowhere.
    type: list
    elements: dict
    default: []
    suboptions: *file
  links:
    description: Symbolic links; without O(links[].target) the link has to be gone.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Absolute path of the link., type: path, required: true}
      target: {description: What it points to., type: str}
      effect:
        description: What a change of this link asks of the units.
        type: str
        choices: [none, daemon-reload, reload, restart]
        default: reload
  exclusive:
    description: Folders in which files that match a pattern and are not declared here are removed.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The folder., type: path, required: true}
      pattern: {description: Shell pattern of file names., type: str, required: true}
      marker: {description: Text that the first line of a file must have for it to be removed., type: str, default: ""}
      keep: {description: Names of files that stay as they are., type: list, elements: str, default: []}
  watches:
    description:
      - Files that the units read and somebody else writes, such as certificates.
      - One that changed after a running unit was last started or reloaded asks for a reload.
    type: list
    elements: path
    default: []
  validate:
    description: Commands that must succeed after the swap and before any reload.
    type: list
    elements: list
    default: []
  apply:
    description: Commands that make changed files effective where no unit does.
    type: list
    elements: list
    default: []
  units:
    description:
      - systemd units in the order in which they are handled.
      - A unit that a condition of its own keeps off, C(ConditionVirtualization=) for instance, counts as started and is named
        in a warning. A unit whose file under C(/etc/systemd/system) goes away is stopped and disabled before.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Unit name with suffix., type: str, required: true}
      enabled: {description: Whether it starts at boot., type: bool}
      state: {description: Whether it runs., type: str, choices: [started, stopped, none], default: started}
      on_change:
        description: What a change does to a running unit; C(auto) follows the strongest effect of the changed files.
        type: str
        choices: [auto, reload, restart, none]
        default: auto
      settle: {description: Seconds for which it has to stay up after a start or a change., type: float, default: 0}
      follows: {description: Paths whose change concerns the unit; all when empty., type: list, elements: path, default: []}
  check:
    description: Commands that must succeed after the reload, tried until O(check_timeout) has passed.
    type: list
    elements: list
    default: []
  sandbox:
    description: What a service of this collection is denied, as a drop-in that is tried before and proven around the process.
    type: dict
    suboptions:
      service: {description: Profile., type: str, required: true, choices: [nginx, postgresql, pgbouncer, redis]}
      unit: {description: Unit or template that gets the drop-in C(65-slipway-sandbox.conf)., type: str, required: true}
      enabled: {description: Whether the drop-in is there., type: bool, default: true}
      fresh:
        description:
          - Whether the unit serves nobody yet, so that it may be restarted. Otherwise the sandbox comes with its next start and
            is reported as pending until then.
        type: bool
        default: false
  trials:
    description: Keys of units, tried in a service of their own before anything is written. Those that are refused are named.
    type: list
    elements: dict
    default: []
    suboptions:
      unit: {description: The unit that will have them., type: str, required: true}
      keys: {description: Keys of its section Service., type: dict, required: true}
  readback:
    description:
      - Effective values that must be there after the reload, tried until O(check_timeout) has passed; what does not arrive takes
        the change back. Without a change they are read once.
      - Each is a check as M(slipway.server.readback) takes it.
    type: list
    elements: dict
    default: []
  check_timeout:
    description: Seconds.
    type: float
    default: 15
  guarded:
    description:
      - Seconds after which the host puts the old files back by itself, and tells the units, when this run has not come to its end
        by then, because it was killed. A host that is restarted meanwhile does so at its start. With 0 the next run finishes it.
      - It has to be longer than everything that this task may take. C(slipway guard status) on the host shows it.
    type: float
    default: 0
attributes:
  check_mode:
    description: Says what would change; per-file and in-place validation are not run.
    support: full
  diff_mode:
    description: Shows each file; secret content stays hidden.
    support: full
"""

EXAMPLES = r"""
- name: Keep nginx to one file, validated, or as it was
  slipway.server.converge:
    name: nginx
    files:
      - path: /etc/nginx/conf.d/tokens.conf
        content: "server_tokens off;\n"
    validate:
      - [nginx, -t]
    units:
      - {name: nginx.service, enabled: true}
"""

RETURN = r"""
files_changed:
  description: Paths that were, or in check mode would be, changed.
  type: list
  returned: success
actions:
  description: What was done to units, in order.
  type: list
  returned: success
reloaded:
  description: Units that took the change by a reload.
  type: list
  returned: success
restarted:
  description: Units that took the change by a restart.
  type: list
  returned: success
unmet:
  description: Units that a condition of their own keeps off.
  type: list
  returned: success
stale:
  description: Watched files that were news to a running unit.
  type: list
  returned: success
resumed:
  description: The effect that an interrupted earlier run had left open; empty when there was none.
  type: str
  returned: success
mismatches:
  description: One sentence for each value of O(readback) that is not effective.
  type: list
  returned: always
pending:
  description: One sentence for each value of O(readback) that a running process gets at its next start only.
  type: list
  returned: always
"""

from pathlib import Path
from typing import Any, Optional

from ansible_collections.slipway.server.plugins.module_utils.guard import armed, install
from ansible_collections.slipway.server.plugins.module_utils.guard.carried import carried
from ansible_collections.slipway.server.plugins.module_utils.host.runner import Runner
from ansible_collections.slipway.server.plugins.module_utils.quiet import QuietModule
from ansible_collections.slipway.server.plugins.module_utils.settings import converge, proof, sandbox, sandboxed, taken

PATH = {"type": "path", "required": True}
OWNED = {"owner": {"type": "str", "default": "root"}, "group": {"type": "str", "default": "root"}}
STATE = {"state": {"type": "str", "choices": ["present", "absent"], "default": "present"}}
EFFECT = {"effect": {"type": "str", "choices": list(converge.EFFECTS), "default": "reload"}}
FILE = {
    "path": PATH,
    "content": {"type": "str"},
    "mode": {"type": "str", "default": "0644"},
    "validate": {"type": "str", "default": ""},
    **OWNED,
    **STATE,
    **EFFECT,
}
UNIT = {
    "name": {"type": "str", "required": True},
    "enabled": {"type": "bool"},
    "state": {"type": "str", "choices": ["started", "stopped", "none"], "default": "started"},
    "on_change": {"type": "str", "choices": ["auto", "reload", "restart", "none"], "default": "auto"},
    "settle": {"type": "float", "default": 0},
    "follows": {"type": "list", "elements": "path", "default": []},
}

SANDBOX = {
    "service": {"type": "str", "required": True, "choices": list(sandbox.SERVICES)},
    "unit": {"type": "str", "required": True},
    "enabled": {"type": "bool", "default": True},
    "fresh": {"type": "bool", "default": False},
}


def listed(options: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Specification of a list of mappings."""
    return {"type": "list", "elements": "dict", "default": [], "options": options, **more}


COMMANDS = {"type": "list", "elements": "list", "default": []}
SPEC = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "originals": {"type": "bool", "default": False},
    "directories": listed({"path": PATH, "mode": {"type": "str", "default": "0755"}, **OWNED, **STATE}),
    "files": listed(FILE, required_if=[("state", "present", ["content"])]),
    "secret_files": listed(
        {**FILE, "content": {"type": "str", "no_log": True}}, required_if=[("state", "present", ["content"])], no_log=False
    ),
    "links": listed({"path": PATH, "target": {"type": "str"}, **EFFECT}),
    "exclusive": listed(
        {
            "path": PATH,
            "pattern": {"type": "str", "required": True},
            "marker": {"type": "str", "default": ""},
            "keep": {"type": "list", "elements": "str", "default": []},
        }
    ),
    "units": listed(UNIT),
    "validate": COMMANDS,
    "apply": COMMANDS,
    "check": COMMANDS,
    "watches": {"type": "list", "elements": "path", "default": []},
    "sandbox": {"type": "dict", "options": SANDBOX},
    "trials": listed({"unit": {"type": "str", "required": True}, "keys": {"type": "dict", "required": True, "no_log": False}}),
    "readback": proof.OPTION,
    "check_timeout": {"type": "float", "default": 15},
    "guarded": {"type": "float", "default": 0},
}


def file_spec(item: dict[str, Any], secret: bool) -> converge.FileSpec:
    """One entry of files or secret_files."""
    return converge.FileSpec(
        path=Path(item["path"]),
        content=item["content"] if item["state"] == "present" else None,
        owner=item["owner"],
        group=item["group"],
        mode=int(item["mode"], 8),
        validate=item["validate"],
        effect=item["effect"],
        secret=secret,
    )


def transaction(params: dict[str, Any]) -> converge.Transaction:
    """The parameters as the library takes them."""
    return converge.Transaction(
        name=params["name"],
        directories=tuple(
            converge.DirectorySpec(Path(d["path"]), d["owner"], d["group"], int(d["mode"], 8), d["state"] == "present")
            for d in params["directories"]
        ),
        files=tuple(
            [file_spec(item, False) for item in params["files"]] + [file_spec(item, True) for item in params["secret_files"]]
        ),
        links=tuple(converge.LinkSpec(Path(link["path"]), link["target"], link["effect"]) for link in params["links"]),
        exclusive=tuple(
            converge.Exclusive(Path(item["path"]), item["pattern"], item["marker"], tuple(item["keep"]))
            for item in params["exclusive"]
        ),
        units=tuple(
            converge.UnitSpec(u["name"], u["enabled"], u["state"], u["on_change"], tuple(map(Path, u["follows"])), u["settle"])
            for u in params["units"]
        ),
        watches=tuple(Path(path) for path in params["watches"]),
        readback=proof.given(params["readback"]),
        check_timeout=params["check_timeout"],
        originals=params["originals"],
        **{key: tuple(tuple(map(str, argv)) for argv in params[key]) for key in ("validate", "apply", "check")},
    )


def arming(runner: Runner, name: str, seconds: float) -> Optional[armed.Arming]:
    """How the change is armed, if it is to be."""
    if seconds <= 0:
        return None
    return armed.Arming(armed.Guard(name, runner), lambda: install.ensure(carried(), runner), seconds, "a playbook")


def main() -> None:
    """Read parameters, ask the library, answer."""
    module = QuietModule(argument_spec=SPEC, supports_check_mode=True)
    runner, params = Runner(), module.params
    wanted, refused, present = transaction(params), [], params["state"] == "present"
    try:
        if params["sandbox"] and present:
            wanted, refused = sandboxed.add(wanted, runner, params["sandbox"], module.check_mode)
        if not module.check_mode:
            sandboxed.refuse(wanted, runner, params["trials"])
        guarded = arming(runner, params["name"], params["guarded"])
        if guarded is not None:
            armed.tell(guarded.guard, module.warn, not module.check_mode)
        converger = converge.Converger(runner, arming=guarded)
        done = converger.run(wanted, module.check_mode) if present else converger.let_go(wanted, module.check_mode)
    except (converge.ConvergeError, armed.GuardError, OSError) as error:
        module.fail_json(msg=str(error))
    for name in done.unmet:
        module.warn(f"{name} stays off: a condition of its own is not met on this host (see `systemctl status {name}`)")
    taken.tell(module.warn, params["name"], done)
    if refused:
        module.warn(sandbox.warning(params["sandbox"]["unit"], refused))
    result = {
        "changed": done.changed,
        "diff": done.diff(),
        "files_changed": [str(change.path) for change in done.changes],
        **{key: getattr(done, key) for key in ("actions", "reloaded", "restarted", "unmet", "stale", "resumed")},
    }
    proof.end(module, params["name"], done.seen, result)


if __name__ == "__main__":
    main()

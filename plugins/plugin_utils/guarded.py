# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of a guarded change: it becomes final only when a login that is new in every respect has seen it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.server.plugins.module_utils.guard.armed import PROGRAM

GUARD = "slipway.server.guard"
NEVER_SHARED = "-o ControlMaster=no -o ControlPath=none"
"""ssh takes the first value of an option, so these stand before those of the inventory."""
LONGEST = 20
"""Seconds that one attempt to connect may take."""


class GuardedAction(ActionBase):
    """For action plugins whose module arms a change."""

    def confirmed(self, result: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """`result` of a module that armed `result["guard"]`, after its confirmation; failed when the change was taken back."""
        armed = result.get("guard") or {}
        if not armed or result.get("failed"):
            return result
        try:
            for port in self._ports(armed):
                self._ask_anew("status", armed, port)
            self._ask_anew("confirm", armed, None)
        except AnsibleError as error:
            return {**result, **self._take_back(armed, str(error), variables)}
        return {**result, "guard": {**armed, "outcome": "confirmed"}}

    def confirm(self, arguments: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Confirm what an earlier task armed."""
        which = {key: arguments[key] for key in ("name", "txn") if arguments.get(key)}
        try:
            return self._over_new_connection(which, variables)
        except AnsibleError as error:
            return self._take_back({"seconds": "the time it was armed for", **which}, str(error), variables)

    def _ports(self, armed: Mapping[str, Any]) -> Sequence[int]:
        """The ports besides the connection's own that can be reached as they are: not through a forwarded port."""
        own = self._option("port")
        own = int(own) if own else 22
        return [port for port in armed.get("ports", []) if port != own] if own == armed.get("session_port", 0) else []

    def _ask_anew(self, verb: str, armed: Mapping[str, Any], port: Optional[int]) -> None:
        """Log in anew and have the program answer that came with the change: no module is carried there for it."""
        command = shlex.join([PROGRAM, verb, str(armed["name"]), "--txn", str(armed["txn"])])
        with self._new_connection(port):
            done = self._low_level_execute_command(command, sudoable=True)
        if done["rc"] != 0:
            raise AnsibleError(str(done["stderr"]).strip() or str(done["stdout"]).strip() or f"{command}: status {done['rc']}")

    def _over_new_connection(self, which: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        with self._new_connection(None):
            said: dict[str, Any] = self._execute_module(GUARD, {**which, "state": "confirmed"}, task_vars=variables)
        if said.get("failed"):
            raise AnsibleError(str(said.get("msg") or said.get("module_stderr") or said))
        return said

    @contextlib.contextmanager
    def _new_connection(self, port: Optional[int]) -> Iterator[None]:
        """Within, every command of this task logs in anew; to `port` when one is given."""
        if not self._is_ssh():
            self._connection.reset()
            yield
            return
        before = {name: self._option(name) for name in ("ssh_args", "port", "reconnection_retries", "timeout")}
        args = f"{NEVER_SHARED} {before['ssh_args'] or ''}"
        if port is not None:
            # The host is known by the name of its old port.
            old = int(before["port"] or 22)
            host = self._option("host") or self._play_context.remote_addr
            args = f"-o HostKeyAlias={host if old == 22 else f'[{host}]:{old}'} {args}"
            self._connection.set_option("port", port)
        self._connection.set_option("ssh_args", args)
        self._connection.set_option("reconnection_retries", 0)
        self._connection.set_option("timeout", min(int(before["timeout"] or LONGEST), LONGEST))
        try:
            yield
        finally:
            for name, value in before.items():
                self._connection.set_option(name, value)

    def _option(self, name: str) -> Any:
        try:
            return self._connection.get_option(name)
        except (KeyError, AnsibleError):
            return None

    def _is_ssh(self) -> bool:
        return str(getattr(self._connection, "transport", "")) == "ssh"

    def _take_back(self, armed: Mapping[str, Any], why: str, variables: dict[str, Any]) -> dict[str, Any]:
        reason = f"no new connection could confirm it: {' '.join(why.split())}"
        which = {key: armed[key] for key in ("name", "txn") if armed.get(key)}
        heard = ""
        try:
            # The session that made the change is still there.
            heard = self._last_words(armed)
            said = self._execute_module(GUARD, {**which, "state": "reverted", "reason": reason[:1500]}, task_vars=variables)
            done = not said.get("failed")
        except AnsibleError:
            done = False
        ended = (
            "It was taken back, the old state is effective"
            if done
            else f"The host takes it back itself within {armed['seconds']} s"
        )
        text = f"The change of {armed['name']} was made and is well on the host, but {reason}.\n{ended}.{heard}"
        return {"failed": True, "changed": False, "msg": text, "guard": {**armed, "outcome": "reverted" if done else "waiting"}}

    def _last_words(self, armed: Mapping[str, Any]) -> str:
        """What the service logged, where its module names one: ssh says nothing of why a login failed."""
        if not armed.get("log"):
            return ""
        # Not by the unit: what a process wrote that has ended meanwhile belongs to none.
        names = " ".join(f"--identifier={name}" for name in armed["log"])
        # What sshd said of the login that just ended may still be on its way to the journal. With both --since and --lines
        # systemd 252 shows the first lines, not the last.
        command = (
            f"sleep 1; journalctl --sync; SYSTEMD_COLORS=0 journalctl {names} --since=-60s --output=cat --no-pager | tail -n 60"
        )
        said = str(self._low_level_execute_command(command, sudoable=True).get("stdout", "")).splitlines()
        # The sessions of this very run are no news.
        lines = [line.strip() for line in said if line.strip() and "session" not in line][-8:]
        return "\n".join(["\nIts last log lines:", *lines]) if lines else ""

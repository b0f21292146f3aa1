# SPDX-License-Identifier: GPL-3.0-or-later
"""For modules whose parameters hold secrets below the first level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    AnsibleModule: Any = object
else:
    from ansible.module_utils.basic import AnsibleModule


class QuietModule(AnsibleModule):  # type: ignore[misc]
    """Keeps its parameters out of the system log, where Ansible would write nested secrets that span lines in full."""

    def _log_invocation(self) -> None:
        self.log("Invoked, parameters not logged")

# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role nginx; their documentation lies beside them, one file for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.slipway.server.plugins.module_utils.settings import nginx_site


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """By name."""
        return {
            "slipway_site_checks": lambda sites, http, https: nginx_site.checks(sites, int(http), int(https)),
            "slipway_site_directories": nginx_site.directories,
            "slipway_site_files": nginx_site.files,
        }

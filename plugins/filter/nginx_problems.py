# Copyright: slipway.server contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: everything that is wrong with the variables of the role nginx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible_collections.slipway.server.plugins.module_utils.settings import nginx

DOCUMENTATION = r"""
name: nginx_problems
short_description: Everything that is wrong with the sites and limits of nginx
version_added: 0.1.0
author: slipway.server contributors
description:
  - Returns one sentence for each problem; an empty list means that the configuration can be written.
options:
  _input:
    description: The sites, as in C(nginx_sites).
    type: list
    elements: dict
    required: true
  headers:
    description: Names and values of response headers.
    type: dict
    default: {}
  worker_connections:
    description: Connections of one worker.
    type: int
    default: 4096
  nofile:
    description: File descriptors of one worker.
    type: int
    default: 16384
  trusted_proxies:
    description: Addresses and networks of load balancers in front.
    type: list
    elements: str
    default: []
  rate_limit_exempt:
    description: Addresses and networks without rate limits.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Refuse sites that cannot work
  ansible.builtin.assert:
    that: nginx_sites | slipway.server.nginx_problems == []
"""

RETURN = r"""
_value:
  description: The problems.
  type: list
  elements: str
"""


def nginx_problems(
    sites: Sequence[Mapping[str, Any]],
    headers: Mapping[str, Any] | None = None,
    worker_connections: int = 4096,
    nofile: int = 16384,
    trusted_proxies: Sequence[str] = (),
    rate_limit_exempt: Sequence[str] = (),
) -> list[str]:
    """See DOCUMENTATION."""
    return [
        *nginx.site_problems(sites),
        *nginx.header_problems(headers or {}),
        *nginx.limit_problems(int(worker_connections), int(nofile)),
        *nginx.proxy_problems(trusted_proxies),
        *nginx.exempt_problems(rate_limit_exempt),
    ]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {"nginx_problems": nginx_problems}

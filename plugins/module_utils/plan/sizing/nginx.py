# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx: connections, descriptors, memory. Memory in MiB."""

from __future__ import annotations

from .numbers import power_of_two

NGINX_BACKLOG = 4096  # role nginx's default


def worker_connections(memory_mb: int) -> int:
    """Connections of one nginx worker: two for each MiB of the host, from 1024 to 4096. Source: own, nginx's default is 512.

    Without a step, so that a little more memory never takes from the other roles more than it brings.
    """
    return max(1024, min(4096, 2 * memory_mb))


def nginx_mb(cores: int, connections: int) -> int:
    """Memory of nginx: 32 MiB and 8 KiB for each connection of each worker. Source: own."""
    return 32 + cores * connections * 8 // 1024


def nginx_descriptors(connections: int) -> int:
    """Descriptors an nginx worker needs: two for each connection (client, upstream) and 64. Source: nginx documentation."""
    return 2 * connections + 64


def nginx_nofile(connections: int) -> int:
    """worker_rlimit_nofile: what is needed, as a power of two. Source: own."""
    return power_of_two(nginx_descriptors(connections))

# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers for the demo and the tests: containers with systemd, sshd and a network of their own."""

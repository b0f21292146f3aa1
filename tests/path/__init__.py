# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole path on real hosts, as a user walks it: playbooks on one side, a client on the other."""

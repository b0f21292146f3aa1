# SPDX-License-Identifier: GPL-3.0-or-later
"""The sample application as releases: archives for systemd units, images in a registry for containers."""

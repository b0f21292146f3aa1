# SPDX-License-Identifier: GPL-3.0-or-later
"""Measurements on hosts of tests/fleet. Nothing here passes or fails by a time."""

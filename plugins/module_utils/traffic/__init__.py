# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots of an application and the traffic between them."""

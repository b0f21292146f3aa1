# SPDX-License-Identifier: GPL-3.0-or-later
"""The library of slipway.server: standard library only, shared by the modules and the host command."""

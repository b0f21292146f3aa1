# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that take themselves back: armed on the host before they happen, confirmed afterwards."""

# SPDX-License-Identifier: GPL-3.0-or-later
"""Input and output on a managed host: commands, files, time. Everything else in the library receives these."""

# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of a service: packages, files and units as one transaction, and reading them back from the running process."""

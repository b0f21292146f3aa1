# SPDX-License-Identifier: GPL-3.0-or-later
"""What an audit looks at, how it judges, and the report of it."""

"""Maintenance that recurs: what is planned, in which hours, and its runs."""

"""Accounts, groups and grants, and every question of what somebody may do."""

"""Registered servers: their fields and passwords, the check before they are saved, and their end."""

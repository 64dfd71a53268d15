"""Desired child objects as plain dicts: pure functions, one file a resource."""

"""Admission webhooks for validation and defaulting: optional, and loaded only when imported.

Guarantees: the names below are the public interface.
Does not: conversion webhooks.
"""

from kaos.runtime.webhooks.hooks import Endpoint
from kaos.runtime.webhooks.review import Admission, Denied
from kaos.runtime.webhooks.server import Webhooks

__all__ = ["Admission", "Denied", "Endpoint", "Webhooks"]

"""KAOS: deploy and orchestrate AI agents on Kubernetes, or on a laptop without it."""

__version__ = "0.1.0"

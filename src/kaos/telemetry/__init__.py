"""How our processes are observed and served: logs, metrics, HTTP serving.

Import the module you need (`kaos.telemetry.logs`, `.serving`, `.http`, `.metrics`); nothing
is imported here, so that a process pays only for what it uses.
"""

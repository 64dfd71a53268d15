"""The terminal: `kaos up`, `down`, `status`, `logs`, `chat`, `controller`.

One file per command, the shared parts beside them. Everything a command does to a cluster goes
through the Kubernetes API; only `up` and `down` know that the embedded one is a process.
"""

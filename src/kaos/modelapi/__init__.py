"""The processes of a ModelAPI's pods: the gateway of mode Proxy, the puller of mode Hosted.

Room rules: imports `kaos.discovery` and `kaos.telemetry` only. `puller` is a sidecar and loads
none of the gateway; `gateway` loads LiteLLM only if a model of its configuration needs it.
"""

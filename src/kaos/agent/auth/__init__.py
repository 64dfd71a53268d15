"""Who may call this agent: off unless one of `KAOS_AUTH_*` is set.

request ─▶ guard ─▶ tokens             a list from a file or the environment
└───▶ service_accounts   callers' projected tokens, by TokenReview
or jwks            or by the cluster's published keys
"""

"""The MCP server process: a package's, a built-in's or a spec's own tools over streamable HTTP.

Room rules: imports `kaos.telemetry` and the `mcp` SDK only, so that the pod stays small.
`source` and `builtin` say which functions are tools, `server` puts them behind MCP and HTTP,
`settings` reads the environment, `__main__` runs it.
"""

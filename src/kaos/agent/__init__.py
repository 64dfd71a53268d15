"""The agent server: an OpenAI-compatible endpoint that reasons with tools and peers.

    caller ─▶ chat (HTTP, SSE) ─▶ loop ─▶ model     the model's API
                                   ├────▶ tools     MCP servers (mcp_pool, mcp_session)
                                   └────▶ peers     other agents
              every step of the loop goes through runs, where it is counted, logged and streamed

A pod loads this and little else: no Kubernetes client, no provider SDK.
"""

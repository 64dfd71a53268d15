"""Sessions: what an agent remembers of its conversations, and where.

    chat ─▶ keeper ─▶ history   which of it goes into a prompt, which of a request is new
                └───▶ store     one protocol; local, sqlite, redis and postgres stand behind it

`MEMORY_TYPE` chooses the store; only its module, and its client library, is loaded.
"""

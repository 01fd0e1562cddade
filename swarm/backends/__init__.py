"""Text generation behind one protocol: our own µLMs, transformers, vLLM, and any OpenAI-compatible endpoint.

Knows prompts, tokens and answers; it knows no worlds, agents, budgets or Ray.
"""

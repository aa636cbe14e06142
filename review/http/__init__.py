"""The HTTP interface for programs: the OpenAI protocol under /v1, adapters by vLLM's routes, figures for Prometheus.

Every request has come through the guard and carries a key. Must not know screens, cookies or the database.
"""

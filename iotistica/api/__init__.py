"""The HTTP API; the only package that uses Litestar and python-jose."""

"""Statements for tenants, users, sessions, API keys and quotas, and the rate limits."""

"""Tenants, users and their sessions, API keys, quotas and rate limits."""

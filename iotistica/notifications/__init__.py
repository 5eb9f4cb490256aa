"""Delivers the notices of the outbox: by HTTP, by e-mail, and by what an administrator switches on."""

"""Rules for permissions, credentials, passwords, and secrets in documents."""

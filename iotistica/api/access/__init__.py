"""Routes for logging in, users, invitations and API keys."""

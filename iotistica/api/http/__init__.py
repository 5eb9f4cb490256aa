"""The HTTP layer that all routes share: server, authentication, errors, inputs, health."""

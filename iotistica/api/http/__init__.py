"""What every route shares: server, authentication, errors, inputs, health."""

"""All statements of SQL and all calls of Redis; no other package contains any."""

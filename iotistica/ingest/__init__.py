"""The consumers: read messages from the streams and store their content in tables."""

"""From the broker into the streams; the only gmqtt."""

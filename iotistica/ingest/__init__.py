"""From the streams into tables."""

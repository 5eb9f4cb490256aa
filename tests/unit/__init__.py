"""One function or class at a time, without servers."""

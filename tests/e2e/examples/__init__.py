"""A walk through every route that people call by hand; what it records are the examples of the documentation."""

"""Pictures of every page of the dashboard, for the documentation and for who draws it."""

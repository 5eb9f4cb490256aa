"""What people arrange on the dashboard."""

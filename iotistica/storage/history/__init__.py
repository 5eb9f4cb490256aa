"""Statements for the audit log and for the timeline of each agent."""

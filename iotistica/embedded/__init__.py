"""Runs PostgreSQL, Valkey and Mosquitto as child processes, for a deployment on one machine."""

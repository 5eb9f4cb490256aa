"""Parts of ours against real PostgreSQL, Valkey and Mosquitto."""

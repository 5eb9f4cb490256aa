"""Child PostgreSQL, Valkey and Mosquitto for one machine."""

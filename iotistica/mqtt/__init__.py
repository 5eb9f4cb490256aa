"""Moves messages from the MQTT broker into the streams. This is the only package that uses gmqtt."""

"""The commands of the command line, `iotistica`."""

"""Lets `python -m iotistica` be the command."""

from iotistica.cli.main import main

main()

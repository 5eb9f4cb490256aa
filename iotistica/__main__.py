"""Lets `python -m iotistica` be the command."""

from iotistica.cli import main

main()

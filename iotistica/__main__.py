"""Runs the command line for `python -m iotistica`."""

from iotistica.cli.main import main

main()

"""Alarms of this process: conditions that an operator must act on, for as long as they last."""

from collections.abc import Mapping
from types import MappingProxyType

from loguru import logger

from iotistica.instruments import ALARMS


class Alarms:
    """The raised alarms by name; /health and /metrics show them, and each change is logged."""

    def __init__(self) -> None:
        self._raised: dict[str, str] = {}

    @property
    def raised(self) -> Mapping[str, str]:
        """The names of the raised alarms, each with what happened and what to do."""
        return MappingProxyType(self._raised)

    def set(self, name: str, text: str | None) -> None:
        """Raise an alarm with a text that says what happened and what to do, or clear it with None."""
        if text is None:
            if self._raised.pop(name, None) is not None:
                ALARMS.set(0, {"alarm": name})
                logger.bind(alarm=name).info("an alarm was cleared")
            return
        if name not in self._raised:
            ALARMS.set(1, {"alarm": name})
            logger.bind(alarm=name).error(text)
        self._raised[name] = text

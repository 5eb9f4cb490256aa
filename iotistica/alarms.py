"""Alarms of this process: what a person must look at, for as long as it lasts."""

from collections.abc import Mapping
from types import MappingProxyType

from loguru import logger

from iotistica.instruments import ALARMS


class Alarms:
    """Raised and cleared by name; shown on /health and /metrics, and logged when they change."""

    def __init__(self) -> None:
        self._raised: dict[str, str] = {}

    @property
    def raised(self) -> Mapping[str, str]:
        """Names and what to do about them."""
        return MappingProxyType(self._raised)

    def set(self, name: str, text: str | None) -> None:
        """Raise an alarm with what happened and what to do, or clear it with None."""
        if text is None:
            if self._raised.pop(name, None) is not None:
                ALARMS.set(0, {"alarm": name})
                logger.bind(alarm=name).info("alarm is over")
            return
        if name not in self._raised:
            ALARMS.set(1, {"alarm": name})
            logger.bind(alarm=name).error(text)
        self._raised[name] = text

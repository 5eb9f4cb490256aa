"""Sets up logging: loguru writes all log lines, including those of the standard library's loggers."""

import logging
import sys
import traceback
from typing import Any

import msgspec
from loguru import logger

TEXT = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> {message} <dim>{extra}</dim>\n{exception}"


class _Intercept(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info, depth=6).log(
            record.levelname if record.levelno in _LEVELS else record.levelno, record.getMessage()
        )


_LEVELS = {logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL}
_QUIET = {
    "gmqtt": "CRITICAL",
    "httpx": "WARNING",
    "uvicorn.error": "WARNING",
    "alembic": "WARNING",
    "psycopg.pool": "ERROR",
}


def configure(level: str = "INFO", style: str = "text") -> None:
    """Write every log line to stderr, as text or, for `style` "json", as one JSON object per line."""
    logger.remove()
    if style == "json":
        logger.add(_json_line, level=level)
    else:
        logger.add(sys.stderr, level=level, format=_text_line, diagnose=False, backtrace=False)
    logging.basicConfig(handlers=[_Intercept()], level=logging.INFO, force=True)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)


def _text_line(record: Any) -> str:
    facts = " ".join(f"{key}={value}" for key, value in record["extra"].items())
    record["extra"] = {"facts": facts}
    return TEXT.replace("{extra}", "{extra[facts]}")


def _json_line(message: Any) -> None:
    record = message.record
    line = {
        **record["extra"],
        "time": record["time"].isoformat(),
        "level": record["level"].name,
        "event": record["message"],
        "logger": record["name"],
    }
    if record["exception"] is not None:
        line["exception"] = "".join(traceback.format_exception(record["exception"].value))
    sys.stderr.write(msgspec.json.encode(line, enc_hook=str).decode() + "\n")

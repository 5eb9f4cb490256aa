"""Which pages of other origins can call the API from a browser: none, unless the settings name some."""

from typing import Final

from litestar.config.cors import CORSConfig

from iotistica.settings import Settings

EXPOSED: Final = ["ETag", "Retry-After", "Content-Disposition"]
"""Headers of answers that scripts of other origins can read."""


def config(settings: Settings) -> CORSConfig:
    """Return the rules for other origins; raises `CannotStart` for text that is no origin.

    Such pages send access tokens or API keys, and never the session cookie: `allow_credentials` stays off.
    """
    return CORSConfig(allow_origins=settings.allowed_origins(), expose_headers=EXPOSED)

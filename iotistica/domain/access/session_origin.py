"""The rule by which a request that carries a cookie is taken for one of the dashboard's own page."""

from collections.abc import Collection
from urllib.parse import urlsplit


def is_own_page(fetch_site: str | None, origin: str | None, own_hosts: Collection[str]) -> bool:
    """Whether a request is from the own page, or from no browser, by its `Sec-Fetch-Site` and `Origin`.

    Browsers send the former only to https and to loopback, and the latter with every POST. The attribute `SameSite`
    of the cookie alone is not enough: to it, another port of the same host is the same site.
    """
    if fetch_site is not None:
        return fetch_site == "same-origin"
    return origin is None or urlsplit(origin).netloc in own_hosts

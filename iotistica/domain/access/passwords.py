"""Password rules: which passwords are accepted, and how long a name is locked after wrong passwords."""

from typing import Final

SHORTEST: Final = 8  # characters (NIST SP 800-63B)
LONGEST: Final = 1024  # characters; argon2 accepts any length, but a longer password costs more time

FREE: Final = 5  # wrong passwords in a row from one address before the first lock
FREE_EVERYWHERE: Final = 100  # wrong passwords in a row from all addresses before the first lock
FIRST: Final = 1.0  # seconds of the first lock; each further wrong password doubles it
LONGEST_LOCK: Final = 900.0  # seconds
FORGOTTEN: Final = 86_400.0  # seconds after which wrong passwords are forgotten

# The most common passwords in published leaks, without digits and punctuation at their ends.
_WORDS: Final = (
    "password passw0rd p@ssw0rd p@ssword qwertyui qwertyuiop asdfghjk asdfghjkl zxcvbnm iloveyou sunshine "
    "princess football baseball superman trustno welcome letmein abcdefgh abcd qazwsx qazwsxedc qwerty "
    "administrator admin changeme default iotistica mosquitto postgres secret master dragon monkey shadow "
    "michael jennifer computer internet samsung starwars whatever passport hello charlie test tester "
    "testtest guest root"
)
_COMMON: Final = frozenset(_WORDS.split())


def problem(password: str, *about: str) -> str | None:
    """Return why a password is rejected, as a predicate, or None; `about` holds the user's name and address."""
    if len(password) < SHORTEST:
        return f"must have at least {SHORTEST} characters"
    if len(password) > LONGEST:
        return f"must have at most {LONGEST} characters"
    plain = password.lower()
    if len(set(plain)) < 4 or plain.isdecimal():
        return "is too simple: use at least 4 different characters, and not only digits"
    if plain.strip("0123456789!.?*#$_-@ ") in _COMMON:
        return "is one of the most common passwords"
    if any(plain in (known.lower(), known.lower().partition("@")[0]) for known in about if known):
        return "must not be the user's name"
    return None


def lock_seconds(failures: int, free: int = FREE) -> float:
    """Return how long a name is locked after `failures` wrong passwords in a row; fewer than `free` do not lock."""
    return 0.0 if failures < free else min(FIRST * 2 ** min(failures - free, 20), LONGEST_LOCK)

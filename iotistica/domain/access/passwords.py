"""Which passwords are taken, and how long a name is locked after wrong ones."""

from typing import Final

SHORTEST: Final = 8  # characters (NIST SP 800-63B)
LONGEST: Final = 1024  # characters; argon2 takes any, but not for any price

FREE: Final = 5  # wrong passwords in a row, from one address, that cost nothing
FREE_EVERYWHERE: Final = 100  # and from anywhere
FIRST: Final = 1.0  # seconds of the first lock; each further wrong password doubles it
LONGEST_LOCK: Final = 900.0  # seconds
FORGOTTEN: Final = 86_400.0  # seconds after which wrong passwords are forgotten

# The commonest of eight and more characters in published leaks, without digits or signs at their end.
_WORDS: Final = (
    "password passw0rd p@ssw0rd p@ssword qwertyui qwertyuiop asdfghjk asdfghjkl zxcvbnm iloveyou sunshine "
    "princess football baseball superman trustno welcome letmein abcdefgh abcd qazwsx qazwsxedc qwerty "
    "administrator admin changeme default iotistica mosquitto postgres secret master dragon monkey shadow "
    "michael jennifer computer internet samsung starwars whatever passport hello charlie test tester "
    "testtest guest root"
)
_COMMON: Final = frozenset(_WORDS.split())


def problem(password: str, *about: str) -> str | None:
    """Why a password is not taken, or None; `about` is what everybody knows of its user."""
    if len(password) < SHORTEST:
        return f"a password has at least {SHORTEST} characters"
    if len(password) > LONGEST:
        return f"a password has at most {LONGEST} characters"
    plain = password.lower()
    if len(set(plain)) < 4 or plain.isdecimal():
        return "this password is too simple"
    if plain.strip("0123456789!.?*#$_-@ ") in _COMMON:
        return "this is among the commonest passwords"
    if any(plain in (known.lower(), known.lower().partition("@")[0]) for known in about if known):
        return "a password is not the user's name"
    return None


def lock_seconds(failures: int, free: int = FREE) -> float:
    """How long a name is locked after so many wrong passwords in a row, of which some cost nothing."""
    return 0.0 if failures < free else min(FIRST * 2 ** min(failures - free, 20), LONGEST_LOCK)

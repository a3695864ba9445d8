"""Subjects of erasures, named without being told: a salted hash of the values of their join keys.

    subject_hash = sha256(salt || for each key, in the order told: length of its value as text, ":", the text)

The length is in bytes of UTF-8, the salt 32 random bytes as 64 hexadecimal digits. Whoever has a value can tell whether
it is meant; whoever has only the hash has to guess, which is easy where there are few possible values. So the hash is
treated as what it is: a pseudonym, not a secret.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SALT_DIGITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who is meant: all that has these values of these join keys, in this order."""

    keys: tuple[str, ...]
    salt: str
    digest: str

    @classmethod
    def of(cls, values: Mapping[str, str | int], salt: str | None = None) -> Subject:
        """The subject that has these values, under a new salt unless one is given."""
        chosen = secrets.token_hex(SALT_DIGITS // 2) if salt is None else salt
        return cls(keys=tuple(values), salt=chosen, digest=subject_digest(chosen, list(values.values())))

    def is_meant(self, values: Sequence[object]) -> bool:
        """Whether these values, in the order of the keys, are the subject's; one that is missing is nobody's."""
        return all(value is not None for value in values) and subject_digest(self.salt, values) == self.digest


def subject_digest(salt: str, values: Sequence[object]) -> str:
    """The hash of values under a salt, as hexadecimal digits."""
    texts = [str(value) for value in values]
    told = salt + "".join(f"{len(text.encode())}:{text}" for text in texts)
    return hashlib.sha256(told.encode()).hexdigest()

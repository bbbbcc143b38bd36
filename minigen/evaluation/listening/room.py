"""Access to a listening test that a class takes on its own phones and laptops, `minigen listen --host ADDRESS`.

    listener ──code──► /start ──► a pass for this name ──► /answer, only with the pass

The code is printed by the server and shown to the class. It opens the page's trials and clips. The pass belongs to one
name: the first device that gives a name gets it and keeps it, and no other device sees or adds answers under that name.
Both are made from one random key in the folder of the test, so that they stay the same when the server is restarted:

    code = the first 6 letters of HMAC-SHA256(key, "code")      pass = HMAC-SHA256(key, "pass " + name)

Six letters out of 32 are 30 bits: a device that tries a thousand codes a second needs about six days for half of them.
"""

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from minigen.engine.errors import MinigenError
from minigen.engine.files import cannot_write, write_atomically
from minigen.evaluation.listening.answers import answers_file
from minigen.evaluation.listening.plan import check_name

KEY_FILE = "room.key"
LETTERS = 6


class Room:
    """The code and the passes of a test in `folder`.

    Raises:
        MinigenError: a folder that cannot be written, or a key file that is damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder, self.key = Path(folder), _key(Path(folder) / KEY_FILE)
        self.taken: set[str] = set()  # names that a device has got a pass for, beside those with answers

    @property
    def code(self) -> str:
        """Six capital letters and digits (2 to 7)."""
        return base64.b32encode(self._digest("code")).decode()[:LETTERS]

    def opens(self, code: str) -> bool:
        """Whether a code is that of the test. Small letters and spaces around it count as well."""
        return hmac.compare_digest(code.strip().upper().encode(), self.code.encode())

    def admit(self, listener: str, shown: str) -> str:
        """Give the pass of a name: to the first device that asks, and to one that shows it again.

        Raises:
            MinigenError: the name belongs to another device, or cannot be used.
        """
        name = check_name(listener)
        if not self.knows(name, shown) and (name in self.taken or answers_file(self.folder, name).exists()):
            raise MinigenError(f"the name {name!r} is taken on another device. Add a letter or a number to it.")
        self.taken.add(name)
        return self._pass(name)

    def knows(self, listener: str, shown: str) -> bool:
        """Whether `shown` is the pass of a name."""
        return hmac.compare_digest(shown.encode(), self._pass(check_name(listener)).encode())

    def _pass(self, name: str) -> str:
        return self._digest(f"pass {name}").hex()

    def _digest(self, what: str) -> bytes:
        return hmac.digest(self.key, what.encode("utf-8", "replace"), hashlib.sha256)


def _key(file: Path) -> bytes:
    """Read the key, or make it on the first call; only its owner may read the file."""
    if not file.exists():
        write_atomically(file, secrets.token_hex(32) + "\n")
        os.chmod(file, 0o600)
    try:
        key = bytes.fromhex(file.read_text("utf-8").strip())
    except OSError as error:
        raise cannot_write(file, error) from error
    except ValueError:
        key = b""
    if len(key) != 32:
        raise MinigenError(f"{file} is no key of a test. Delete it; a new one gives the test another code.")
    return key

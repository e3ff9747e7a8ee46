"""Identifiers of studies and patients, hashed with a secret key."""
import contextlib
import hashlib
import os
import secrets
from pathlib import Path

from common.files import InputError


def read_key(path: str | None, output: Path) -> bytes:
    """The key of the hashes.

    Parameters
    ----------
    path : str or None
        File of --key; None: hash_key.txt in `output`, made there the first time.
    output : Path
        Output folder.

    Returns
    -------
    bytes
        64 bytes for `hash_id`.

    Raises
    ------
    InputError
        The file cannot be read or holds fewer than 16 bytes.
    """
    default = output / "hash_key.txt"
    if path is None:
        with contextlib.suppress(FileExistsError):
            output.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(default, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32) + "\n")
            print(f"new key {default}: with it, scan_id and patient_id can be traced to studies and patients. Keep it "
                  "from whoever gets the images, and give it as --key wherever the same patients must match")
    try:
        secret = Path(path or default).read_bytes().strip()
    except OSError as error:
        raise InputError(f"--key {path or default}: {error.strerror}; give a readable file") from error
    if len(secret) < 16:
        raise InputError(f"--key {path or default}: {len(secret)} bytes; a key needs at least 16")
    return hashlib.blake2b(secret).digest()


def hash_id(value: str, key: bytes | None) -> str:
    """Keyed BLAKE2b (RFC 7693) of an identifier, 24 hexadecimal digits; the identifier itself where key is None."""
    return value if key is None else hashlib.blake2b(value.encode(), digest_size=12, key=key).hexdigest()

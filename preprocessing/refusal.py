"""Refusals: what gives no trustworthy SUV, and what would fix it."""
import os
from typing import Any

from common.files import InputError

IDENTIFYING = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")


class Refused(InputError):
    """A file or series that gives no trustworthy SUV.

    Values of identifying attributes are withheld: the text goes to files that may be shared.

    Parameters
    ----------
    attribute : str or int
        DICOM keyword, the tag of a private element, or "file" or "archive".
    value : object
        The attribute's value.
    reason, remedy : str
        Why the value is refused, and what would fix it.
    """

    def __init__(self, attribute: str | int, value: Any, reason: str, remedy: str) -> None:
        if isinstance(attribute, int):
            attribute = f"({attribute >> 16:04X},{attribute & 0xFFFF:04X})"
        text = "(withheld)" if attribute in IDENTIFYING else " ".join(str(value).split())[:120]
        super().__init__(f"{attribute} {text!r}: {reason}; {remedy}")
        self.attribute, self.value, self.reason, self.remedy = attribute, text, reason, remedy

    def __reduce__(self) -> tuple[Any, ...]:  # crosses process boundaries
        return Refused, (self.attribute, self.value, self.reason, self.remedy)


class NotDicom(Refused):
    """The file has no DICOM preamble. `suspect`: by its name or its bytes it should have one."""

    def __init__(self, path: str | os.PathLike[str], suspect: bool = False) -> None:
        super().__init__("file", os.path.basename(path), "has no DICOM preamble" if suspect else "is not a DICOM file",
                         "copy it again from its source, or remove it")
        self.suspect = suspect

    def __reduce__(self) -> tuple[Any, ...]:
        return NotDicom, (self.value, self.suspect)


def unexpected(error: Exception, name: str = "") -> Refused:
    """The refusal for an exception that nothing foresaw."""
    return Refused("file", name, f"cannot be converted ({type(error).__name__}: {' '.join(str(error).split())[:200]})",
                   "check that the series is complete and undamaged")

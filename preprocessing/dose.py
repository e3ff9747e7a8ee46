"""Weight, height, injected dose and radionuclide of a series (rules 3 to 5 of docs/reference/suv_rules.md)."""
from collections.abc import Callable

from preprocessing.dicom_values import Header, number, text
from preprocessing.refusal import Refused

Warn = Callable[[str], None]  # takes note of an assumption

# Radionuclide -> half-life in s (ENSDF), codes of CID 4020 (SNOMED RT and CT)
RADIONUCLIDES = {
    "F-18": (6586.2, "C-111A1", "77004003"), "C-11": (1221.8, "C-105A1", "40565003"),
    "N-13": (597.9, "C-107A1", "21576001"), "O-15": (122.24, "C-B1038", "129504001"),
    "Ga-68": (4062.6, "C-131A3", "35337001"), "Rb-82": (75.45, "C-159A2", "79197006"),
    "Cu-62": (580.2, "C-127A5", "422934004"), "Cu-64": (45721.0, "C-127A2", "3932008"),
    "Zr-89": (282276.0, "C-168A4", "63360001"), "I-124": (360806.0, "C-114A5", "40937006"),
    "Y-86": (53064.0, "C-162A3", "10738001"), "Br-76": (58320.0, "C-113A2", "79523006"),
}


def reference_mass(kind: str, weight: float, height: float, sex: str, warn: Warn) -> float:
    """The mass that an SUV is normalised to (rule 3; DICOM PS3.3 C.8.9.4.1.7).

    Parameters
    ----------
    kind : {"LBM", "LBMJAMES128", "LBMJANMA", "IBW"}
        SUVType.
    weight, height : float
        kg, cm.
    sex : str
        PatientSex.

    Returns
    -------
    float
        kg.

    Raises
    ------
    Refused
        The formula gives no positive mass.
    """
    ratio, bmi = (weight / height) ** 2, weight / (height / 100) ** 2
    both = {"LBM": (1.10 * weight - 120 * ratio, 1.07 * weight - 148 * ratio),
            "LBMJAMES128": (1.10 * weight - 128 * ratio, 1.07 * weight - 148 * ratio),
            "LBMJANMA": (9270 * weight / (6680 + 216 * bmi), 9270 * weight / (8780 + 244 * bmi)),
            "IBW": (48.0 + 1.06 * (height - 152), 45.5 + 0.91 * (height - 152))}[kind]
    if sex in ("M", "F"):
        mass = both[sex == "F"]
    else:
        warn(f"PatientSex {sex!r}: the mean of the male and female {kind} was taken")
        mass = sum(both) / 2
    if mass <= 0:
        raise Refused("PatientSize", f"{height:g} cm", f"gives a {kind} of {mass:.1f} kg", "correct height and weight")
    return mass


def body_weight(header: Header, warn: Warn) -> float:
    """PatientWeight in kg (rule 4). Raises Refused where it is missing or not positive."""
    weight = number(header, "PatientWeight") or 0
    if weight <= 0:
        raise Refused("PatientWeight", text(header, "PatientWeight"), "missing or not positive",
                      "add the weight in kg to the files")
    if weight > 1000:
        weight /= 1000
        warn(f"PatientWeight read as grams: {weight:g} kg")
    if not 20 <= weight <= 250:
        warn(f"PatientWeight {weight:g} kg is unusual")
    return weight


def body_height(header: Header, warn: Warn) -> float:
    """PatientSize in cm (rule 4). Raises Refused where it is missing or not positive."""
    height = number(header, "PatientSize") or 0
    if height <= 0:
        raise Refused("PatientSize", text(header, "PatientSize"), "missing or not positive",
                      "add the height in m to the files")
    if height > 3:
        warn(f"PatientSize read as centimetres: {height:g} cm")
    else:
        height *= 100
    if not 100 <= height <= 220:
        warn(f"PatientSize {height:g} cm is unusual")
    return height


def radiopharmaceutical(header: Header) -> Header:
    """The item of RadiopharmaceuticalInformationSequence (PS3.3 C.8.9.2); Refused where there are several."""
    items = header.get("RadiopharmaceuticalInformationSequence") or [{}]
    if len(items) > 1:
        raise Refused("RadiopharmaceuticalInformationSequence", f"{len(items)} items", "more than one injection",
                      "keep the item that the images show")
    return items[0]


def injected_dose(radio: Header, warn: Warn) -> float:
    """RadionuclideTotalDose in Bq (rule 4). Raises Refused where it is missing or not positive."""
    dose = number(radio, "RadionuclideTotalDose") or 0
    if dose <= 0:
        raise Refused("RadionuclideTotalDose", text(radio, "RadionuclideTotalDose"), "missing or not positive",
                      "add the injected dose in Bq to the files")
    if dose < 1e4:
        dose *= 1e6
        warn(f"RadionuclideTotalDose read as MBq: {dose / 1e6:g} MBq")
    if not 1e7 <= dose <= 2e9:
        warn(f"RadionuclideTotalDose {dose / 1e6:g} MBq is unusual")
    return dose


def half_life_of(radio: Header) -> tuple[str, float]:
    """Radionuclide and half-life, from the attribute, else from the code (rule 5).

    Parameters
    ----------
    radio : dict
        The item of RadiopharmaceuticalInformationSequence.

    Returns
    -------
    name : str
        Such as "F-18", "" where it is not known.
    half_life : float
        s.

    Raises
    ------
    Refused
        Neither is there, or the two disagree.
    """
    code = text((radio.get("RadionuclideCodeSequence") or [{}])[0], "CodeValue")
    given = number(radio, "RadionuclideHalfLife") or 0
    name = next((n for n, (_, *codes) in RADIONUCLIDES.items() if code in codes), "")
    known = RADIONUCLIDES[name][0] if name else 0
    if given < 0 or not given and not known:
        raise Refused("RadionuclideHalfLife", text(radio, "RadionuclideHalfLife"), "missing, and the radionuclide code "
                      f"{code!r} is not known", "add the half-life in s")
    if given and known and abs(given / known - 1) > 0.05:
        raise Refused("RadionuclideHalfLife", f"{given:g} s", f"{name} has {known:g} s", "correct one of the two")
    if not name and abs(given / RADIONUCLIDES["F-18"][0] - 1) < 0.02:
        name = "F-18"
    return name, given or known

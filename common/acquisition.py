"""How a scan was acquired, beside what EANM's guideline for FDG PET/CT of tumours, version 2.0, asks for.

Boellaard et al., Eur J Nucl Med Mol Imaging 2015;42:328-354, doi:10.1007/s00259-014-2961-x: 60 minutes from injection
to scan, 55 to 75 are accepted; at least 14 MBq x min/bed per kg, or 7 where beds overlap by more than 30 %; a mean SUV
of 1.3 to 3.0 in a sphere of 3 cm in the right lobe of the liver. Imports no torch.
"""
from collections.abc import Mapping
from typing import Any, NamedTuple

UPTAKE_MIN = 55, 75
DOSE_PER_BED = 14, 7  # MBq x min/bed per kg; the second where beds overlap by more than 30 %
LIVER_SUV, LIVER_SPHERE_MM = (1.3, 3.0), 30.0
GUIDELINE = "EANM 2.0"


class Fact(NamedTuple):
    """One thing that is known of a scan.

    Attributes
    ----------
    name, value : str
        What, and how much with its unit; "not stored".
    wanted : str
        What the guideline asks for, or "".
    within : bool or None
        Whether it is that; None where nothing is asked for, or it cannot be told.
    """

    name: str
    value: str
    wanted: str = ""
    within: bool | None = None


def facts(row: Mapping[str, Any]) -> list[Fact]:
    """What is known of a scan's acquisition.

    Parameters
    ----------
    row : mapping
        Of `preprocessing.conversion.convert_study`, numbers or text; what it lacks, or is empty, is not stored.
    """
    uptake, dose, weight, minutes = (number(row, name) for name in ("uptake_min", "dose_MBq", "weight_kg", "frame_min"))
    liver, highest = number(row, "liver_suv"), number(row, "suv_max")
    kind = f"--suv {row['suv_type']}" if row.get("suv_type") not in (None, "", "bw") else ""  # the bounds are of bw
    found = [Fact("Uptake time", shown(uptake, "{:.0f} min"), "60 min; {} to {} are accepted".format(*UPTAKE_MIN),
                  inside(uptake, UPTAKE_MIN, 0)),
             Fact("Injected dose", shown(dose, "{:.0f} MBq")), Fact("Weight", shown(weight, "{:.0f} kg")),
             dose_per_weight(dose, weight, minutes)]
    no_liver = f"not measured: SUV is of {kind}" if kind else "not found for certain"
    found.append(Fact("Mean SUV of the liver", no_liver if liver is None else f"{liver:.2f}",
                      "{} to {}".format(*LIVER_SUV), inside(liver, LIVER_SUV, 2)))
    texts = [Fact(name, str(row.get(name.lower()) or "not stored")) for name in ("Scanner", "Units")]
    return [*found, Fact("Highest SUV", shown(highest, "{:.1f}" + f" ({kind})" * bool(kind))), *texts]


def dose_per_weight(dose: float | None, weight: float | None, minutes: float | None) -> Fact:
    """MBq/kg and, by the minutes per bed position, what the guideline compares."""
    name, (most, least) = "Dose per weight", DOSE_PER_BED
    wanted = f"at least {most} MBq·min/kg, or {least} where beds overlap by more than 30 %"
    if not dose or not weight:
        return Fact(name, "not stored", wanted)
    value = f"{dose / weight:.1f} MBq/kg"
    if not minutes:
        return Fact(name, value, wanted)
    product = round(dose / weight * minutes, 1)  # as it is shown
    within = True if product >= most else None if product >= least else False
    return Fact(name, f"{value} × {minutes:.3g} min a bed = {product:.1f} MBq·min/kg", wanted, within)


def outside(known: list[Fact]) -> list[str]:
    """A warning for each fact that is not as the guideline asks."""
    return [f"{fact.name.lower().replace('suv', 'SUV')} {fact.value}: {GUIDELINE} asks for {fact.wanted}"
            for fact in known if fact.within is False]


def number(row: Mapping[str, Any], name: str) -> float | None:
    """A value of the row; None where it is missing or empty."""
    value = row.get(name)
    return None if value in (None, "") or value != value else float(str(value))


def shown(value: float | None, form: str) -> str:
    return "not stored" if value is None else form.format(value)


def inside(value: float | None, bounds: tuple[float, float], decimals: int) -> bool | None:
    """Whether the value is within the bounds as it is shown, with so many decimals: not "55 min; 55 are accepted"."""
    return None if value is None else bounds[0] <= round(value, decimals) <= bounds[1]

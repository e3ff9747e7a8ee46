"""Time frames of a dynamic series: the one, or all, that --frames asks for."""
from common.text import counted
from preprocessing.dicom_values import Header, Refused, number, numbers, text
from preprocessing.dose import Warn, acquisition_times


def choose_frames(headers: list[Header], frames: str | None, warn: Warn) -> tuple[list[list[Header]], list[float]]:
    """The time frames of a series to use.

    Parameters
    ----------
    headers : list of dict
        Of every image of one series.
    frames : str or None
        "last", "mean", or the number of one, from 1; None where no dynamic series is wanted.

    Returns
    -------
    chosen : list of list of dict
        The images of each frame to use; all in one where the series has no frames, or none were asked for.
    weights : list of float
        Of each chosen frame in their mean: its share of the duration.

    Raises
    ------
    Refused
        Gates; frames that cannot be told apart; no frame of that number.
    """
    of_place: dict[tuple[float, ...], list[int]] = {}
    for index, header in enumerate(headers):
        place = numbers(header, "ImagePositionPatient", 3) or ()
        of_place.setdefault(tuple(round(x, 2) for x in place), []).append(index)
    counts = {len(several) for several in of_place.values()}
    if frames is None or counts == {1}:
        return [headers], [1]
    kind = text(headers[0], "SeriesType")
    if kind.startswith("GATED"):
        raise Refused("SeriesType", kind, "has gates, no time frames", "give a static series of the study")
    if len(counts) > 1:
        raise Refused("ImagePositionPatient", "", f"{min(counts)} to {max(counts)} time frames at one slice",
                      "give every image of the dynamic series")
    total = counts.pop()
    acquired = acquisition_times(headers, lambda text: None)
    order = [(0 if acquired is None else acquired[k], number(header, "FrameReferenceTime") or 0)
             for k, header in enumerate(headers)]
    if any(len({order[index] for index in several}) < total for several in of_place.values()):
        raise Refused("AcquisitionTime", "", "images of one slice have the same time", "give one reconstruction")
    places = [sorted(several, key=order.__getitem__) for several in of_place.values()]
    every = [[headers[several[k]] for several in places] for k in range(total)]
    for header in headers:
        header["dynamic"] = b"1"
    if frames == "mean":
        minutes = [(number(part[0], "ActualFrameDuration") or 0) / 60000 for part in every]
        known = min(minutes) > 0
        warn(f"dynamic: the mean of its {total} time frames was used, by --frames" + (
            f", weighted by their durations, {sum(minutes):.3g} min in all" if known else
            ", all with one weight: ActualFrameDuration is missing"))
        return every, [m / sum(minutes) for m in minutes] if known else [1 / total] * total
    wanted = total if frames == "last" else int(frames)
    if wanted > total:
        raise Refused("SeriesType", kind, f"has {counted(total, 'time frame')}, --frames {frames} is not one of them",
                      f"give 1 to {total}, last or mean")
    warn(f"dynamic: time frame {wanted} of {total} was used, by --frames")
    return [every[wanted - 1]], [1]

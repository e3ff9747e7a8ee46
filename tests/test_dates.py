"""Dates as DICOM, people and spreadsheets write them."""
import pytest

from preprocessing.dates import one_order, readings, to_date

TENTH = {"2024-03-10"}


@pytest.mark.parametrize("text", [
    "2024-03-10", "20240310", "2024.03.10", "2024/3/10", "2024-03-10 00:00:00", "2024-03-10T08:15", " 10.03.2024 ",
    "10.3.2024", "10 Mar 2024", "10-Mar-2024", "10. March 2024", "Mar 10, 2024", "march 10 2024"])
def test_one_day(text):
    assert readings(text) == TENTH and to_date(text) == "2024-03-10"


@pytest.mark.parametrize("text", [
    "", "2024", "202403", "2024310", "24-03-10", "10.03.24", "2024-13-01", "31.02.2024", "45361", "10/03-2024",
    "2024-03/10", "10 foo 2024", "2024-03-10 morning", "20240310123000", "2024-02-30"])
def test_no_day(text):
    assert readings(text) == set() and to_date(text) == to_date(text, True) == ""


def test_two_days_are_told_by_the_column():
    assert readings("03/10/2024") == {"2024-03-10", "2024-10-03"} and to_date("03-10-2024") == ""
    assert to_date("03/10/2024", day_first=True) == "2024-10-03" and to_date("03/10/2024", False) == "2024-03-10"
    assert one_order(["03/10/2024", "13/10/2024"]) is True and one_order(["10/13/2024", "2024-10-13", ""]) is False
    assert one_order(["03/10/2024", "05/05/2024", "13.10.2024", "31/02/2024", "05/5/2024"]) is None
    with pytest.raises(ValueError, match="day first and with the month first"):
        one_order(["13/10/2024", "10/13/2024"])

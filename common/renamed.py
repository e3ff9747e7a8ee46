"""Former names of options, understood on command lines and in checkpoints, parameter files, spaces and studies."""
from collections.abc import Iterable

RENAMED = {"lambda_loc": "site_lambda", "detach_loc": "site_detach", "loc_on": "site_on", "loc_balance": "site_balance",
           "loc_smoothing": "site_smoothing", "sites_multi": "site_multi", "loc_map": "site_map",
           "loc_strict": "site_strict", "resume_anyway": "force_resume"}
ADDED = {"keep": "best"}  # arguments that older settings lack -> the value that the code had then
_WORDS = {"normalize": [], "no_normalize": ["--norm", "none"], "lr_scheduler": ["--lr_schedule", "plateau"]}


def current_names(values: dict) -> dict:
    """Stored values under the present names of their options.

    Parameters
    ----------
    values : dict
        Of a checkpoint, a study or a row of parameters. `normalize` is gone: where it is False, `norm` is "none".

    Returns
    -------
    dict
        In the order of `values`.
    """
    found = {RENAMED.get(name, name): value for name, value in values.items() if name != "normalize"}
    if str(values.get("normalize", True)) == "False":
        found["norm"] = "none"
    return found


def current_args(values: dict) -> dict:
    """`current_names` of stored arguments, with those of ADDED that they lack."""
    return ADDED | current_names(values)


def current_words(words: list, known: Iterable[str] = ()) -> list[str]:
    """A command line with the present names of options.

    Parameters
    ----------
    words : list
        Such as ["--lambda_loc", 2] or ["--lambda-loc=2"].
    known : iterable of str
        A parser's options: dashes and underscores in a name are alike.

    Returns
    -------
    list of str
    """
    spellings = {_alike(option): option for option in known}
    found: list[str] = []
    for word in map(str, words):
        option, equals, value = word.partition("=")
        name = _alike(option)
        if name in RENAMED and option.startswith("--"):
            word = f"--{RENAMED[name]}{equals}{value}"
        elif name in spellings and option.startswith("--"):
            word = spellings[name] + equals + value
        found += _WORDS.get(name, [word]) if word.startswith("--") and not equals else [word]  # they take no value
    return found


def _alike(option):
    return option.lstrip("-").replace("-", "_")

"""Options that once had other names: one table for command lines, checkpoints, parameter files, spaces and studies."""

RENAMED = {"lambda_loc": "site_lambda", "detach_loc": "site_detach", "loc_on": "site_on", "loc_balance": "site_balance",
           "loc_smoothing": "site_smoothing", "sites_multi": "site_multi", "loc_map": "site_map",
           "loc_strict": "site_strict", "resume_anyway": "force_resume"}
ADDED = {"keep": "best"}  # arguments that older settings lack: what was done then
_WORDS = {"--normalize": [], "--no-normalize": ["--norm", "none"], "--lr_scheduler": ["--lr_schedule", "plateau"]}


def current_names(values: dict) -> dict:
    """Stored values under the names that their options have today.

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
    """Stored arguments under the names of today (`current_names`), with those of `ADDED`."""
    return ADDED | current_names(values)


def current_words(words: list) -> list[str]:
    """A command line with the option names of today.

    Parameters
    ----------
    words : list
        Such as ["--lambda_loc", 2] or ["--lambda_loc=2"].

    Returns
    -------
    list of str
    """
    found: list[str] = []
    for word in map(str, words):
        option, equals, value = word.partition("=")
        name = option.removeprefix("--")
        if option.startswith("--") and name in RENAMED:
            word = f"--{RENAMED[name]}{equals}{value}"
        found += _WORDS.get(word, [word])
    return found

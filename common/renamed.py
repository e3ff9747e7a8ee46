"""Options that once had other names: one table for command lines, checkpoints, parameter files, spaces and studies."""

RENAMED = {"lambda_loc": "site_lambda", "detach_loc": "site_detach", "loc_on": "site_on", "loc_balance": "site_balance",
           "loc_smoothing": "site_smoothing", "sites_multi": "site_multi", "loc_map": "site_map",
           "loc_strict": "site_strict", "resume_anyway": "force_resume"}


def current_names(values: dict) -> dict:
    """Stored values (of a checkpoint, a study, a file) under the names that they have today; the order is kept.

    `normalize` is gone: where it was False, `norm` is "none".
    """
    found = {RENAMED.get(name, name): value for name, value in values.items() if name != "normalize"}
    if str(values.get("normalize", True)) == "False":
        found["norm"] = "none"
    return found


def current_words(words: list) -> list:
    """A command line with the options' names of today: --lambda_loc 2 and --lambda_loc=2, --no-normalize."""
    found = []
    for word in map(str, words):
        option, equals, value = word.partition("=")
        if option == "--no-normalize":
            found += ["--norm", "none"]
        elif option != "--normalize":
            name = option.removeprefix("--")
            found.append(f"--{RENAMED[name]}{equals}{value}" if option.startswith("--") and name in RENAMED else word)
    return found

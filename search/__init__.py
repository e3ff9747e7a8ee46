"""Optuna: trials, studies, spaces, the page."""

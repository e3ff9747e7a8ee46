"""Prediction files to scans, statistics, figures, report. Imports no torch."""

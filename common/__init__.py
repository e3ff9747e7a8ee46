"""What every stage shares: arguments, files, exit codes, the manifest. Imports no torch."""
__version__ = "1.0.0"

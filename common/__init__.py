"""What every stage shares: arguments, files, exit codes, the manifest. Imports no torch."""

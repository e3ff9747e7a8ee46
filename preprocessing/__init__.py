"""DICOM to SUV, SUV to MIPs, MIPs to the manifest."""

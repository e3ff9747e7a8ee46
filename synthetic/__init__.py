"""The phantom's body and its cohort."""

"""The application: command line, doctor, benchmark, demo."""

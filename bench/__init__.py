"""Performance figures, each as a ratio against a named peer or limit measured in the same run. Never part of the test suite."""

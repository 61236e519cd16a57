"""The suite's small models in the formats that runtimes read, one writer a file."""

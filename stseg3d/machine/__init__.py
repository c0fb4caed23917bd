"""The machine and its files: what every other room stands on."""

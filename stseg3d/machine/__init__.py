"""The computer and its operating system: files, locks, memory, threads and devices, the same on Linux, macOS and Windows."""

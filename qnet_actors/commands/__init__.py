"""The groups of the `qnet` command, one module each; their heavy imports wait until they run."""

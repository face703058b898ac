"""The named experiments: their registry, how they are run, what they leave behind."""

"""What the studies share: the networks they compress, how a row is measured, config files and folders of results."""

"""Training losses, one file each, offered as `train.clean()` and so on."""

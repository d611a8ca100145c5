"""The commands of `mailing`, a module for each group of them."""

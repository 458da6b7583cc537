"""Run the training of a service and report it as plain data; shared by `pipeline train` and `demo`."""

"""What a run would read and make anew, without running it."""

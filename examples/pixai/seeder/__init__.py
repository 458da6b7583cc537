"""The parts of the demo's seeder; `seed.py` beside this folder puts them together."""

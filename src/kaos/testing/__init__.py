"""What tests of and on KAOS are written with.

Nothing is imported here: pytest loads `kaos.testing.plugin` in every session of every project
that has KAOS installed, and pays only for the fixtures it uses.
"""

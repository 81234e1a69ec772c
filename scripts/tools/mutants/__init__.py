"""Mutants: are the tests of what a change touches able to see a mistake in it?"""

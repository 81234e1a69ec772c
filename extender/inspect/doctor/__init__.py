"""`warmnode doctor`: checks of an installation and of the cluster around it. Pure: evidence in, findings out.

`inspect.survey` gathers the evidence. A check has no clock and no I/O, and says what it could not look at.
"""

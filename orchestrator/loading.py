"""How a program of ours loads: what it loads stays. To look through that for garbage, as Python does again and again
while it grows and three times at the end, would take up to a third of the processor's time between a start and an end.

Imported first of all by what is a program, never by the SDK: the process is then somebody else's.
"""

import atexit
import gc

SELDOM = 10_000
"""Objects made before the garbage collector looks, in place of 700."""

gc.set_threshold(SELDOM)
atexit.register(gc.freeze)  # the end of the process frees it all

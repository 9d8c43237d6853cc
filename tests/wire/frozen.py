"""The end of preloading for forked processes: no collection of garbage looks at the imported modules again.

A collection writes to each object that it looks at, so that a forked process copies the whole heap.
"""

from proxy.tuning import settle_heap

settle_heap()

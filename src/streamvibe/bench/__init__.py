"""``streamvibe bench``: measures the queue, and other queues beside it, on this machine.

A *system* is one adapter file (ours: ``ours.py``; peers: ``benchmarks/peers/<name>.py``). Processes of their own
run it (``agent.py``, by that system's Python), and the harness tells them what to do, so every system is measured
by the same code: ``scenarios.py``. A *cell* is one scenario of one system in one run, on a database of its own.
"""

"""Measures Fairlead beside a direct OpenSSH `sshd`: same machine, same run, same stock client.

A single timing of a busy machine means little, so every figure comes from pairs: one sample of each
target, one straight after the other, the order changing from pair to pair. What is quoted is the
median, and for the comparison the median of the ratios of the pairs.

    cli → rows → (pairs · client · swarm) → targets → processes
                                 report · machine
"""

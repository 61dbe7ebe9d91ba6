"""What clipping prevents and what it costs, shown by networks in NumPy that are short enough to read.

``layers``, ``rnn`` and ``optimizers`` are the networks, ``training`` and ``wgan`` their loops, ``clipping``
the one place where clipping enters. ``running`` makes one run, ``results`` and ``pictures`` keep it,
``sweep`` makes many. The commands are ``clipcore train`` and ``clipcore sweep``.
"""

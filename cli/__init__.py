"""The command line: one file per command, one output sink, one place where errors become sentences.

Installed as ``graphprune_cli``, so that no package named ``cli`` lands on the user's path.
"""

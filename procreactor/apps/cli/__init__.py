"""The command ``procreactor run``: what GNU parallel and xargs do, where they agree with sense.

The rooms, in the order in which a command line passes through them:

* `table`, `values`, `options`: the arguments become an `Options`, checked; `manual` makes the help,
  the man page and the completions out of the same table.
* `plan`, `inputs`, `combine`: files, standard input and ``:::`` become records, each a tuple of
  values.
* `template`: the command's words and a record become the argv of one child.
* `exits`: with which exit status it ends. When it stops is `procreactor.apps.halt`'s to say.

Only `inputs` reads anything; the others are pure.
"""

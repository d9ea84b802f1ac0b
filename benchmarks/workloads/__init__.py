"""What is measured. One module per workload; none knows a library.

A module has

    KIND      which adapters it needs: "spawn" or "pipes"
    NEEDS     the name in the adapter's module without which it can not be measured
    UNITS     {figure: unit}, all that `run` returns; those in SHOWN stand in the tables
    SHOWN     names of figures, in order
    PARAMS    tuple of `benchmarks.model.Point`: the columns of its tables, quick and full
    run(adapter, **params) -> {figure: number}
              does a short warm-up of its own work, then the work, with the clock around that
              alone; `NotPossible` leaves the cell of the table empty

and perhaps ``ABOUT``, a line of text under the heading of its tables. A point whose params have a
"way" is only for adapters with that way in their ``WAYS``. Which libraries take part is said in
``benchmarks/plan.py``.
"""

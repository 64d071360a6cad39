"""What given weights are worth: several tasks, few labels or all, several seeds, one table.

:mod:`~swath.assess.settings` say which models, tasks, shares of labels and seeds, and
:mod:`~swath.assess.ways` how models are put to work; :mod:`~swath.assess.cells` are their
combinations, each with a record that is finished or absent, of what :mod:`~swath.assess.identity`
says. :mod:`~swath.assess.plan` has the run of each. :mod:`~swath.assess.work` goes through all;
:mod:`~swath.assess.measure` measures one, by :mod:`~swath.assess.frozen` features or
:mod:`~swath.assess.tuned` ones. :mod:`~swath.assess.table` and :mod:`~swath.assess.page` show what
was found.
"""
